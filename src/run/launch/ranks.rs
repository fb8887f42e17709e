// SPDX-License-Identifier: Apache-2.0
//! Where the ranks of a step run, as each says in its step's log before its command starts
//! ([`START_SH`](crate::plan::step::START_SH)).

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::input::source;
use crate::run::result::RankPlace;

/// The most bytes that are read at a time while the step runs.
pub const ROUND: u64 = 4 << 20;
/// The most bytes that are read when it has ended: its ranks say where they run before all else.
pub const REST: u64 = 64 << 20;

/// How far a log has been read.
#[derive(Debug, Default)]
pub struct Reader(u64);

impl Reader {
    /// The places that the next bytes of a log name, at most `limit` bytes.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn read(&mut self, log: &Path, limit: u64) -> io::Result<Vec<RankPlace>> {
        let mut file = source::open(log)?;
        file.seek(SeekFrom::Start(self.0))?;
        let (mut file, mut line, mut found) =
            (BufReader::new(file.take(limit)), Vec::new(), Vec::new());
        while file.read_until(b'\n', &mut line)? > 0 {
            // The rest of a line that is being written is read the next time.
            let is_whole = line.ends_with(b"\n") || file.get_ref().limit() == 0;
            if !is_whole {
                break;
            }
            self.0 += line.len() as u64;
            found.extend(of_line(&String::from_utf8_lossy(&line)));
            line.clear();
        }
        Ok(found)
    }
}

/// The place that a line names. Another rank may have begun the line.
fn of_line(line: &str) -> Option<RankPlace> {
    let (_, rest) = line.split_once("slurm-disagg: rank=")?;
    let (rank, rest) = rest.split_once(" node=")?;
    let (node, rest) = rest.split_once(" gpus=")?;
    let (gpus, cuda) = rest.split_once(" CUDA_VISIBLE_DEVICES=")?;
    Some(RankPlace {
        rank: rank.parse().ok()?,
        node: node.to_owned(),
        gpus: gpus.split(',').filter(|gpu| !gpu.is_empty()).map(str::to_owned).collect(),
        cuda_visible_devices: cuda.trim_end().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn places_are_read_as_the_log_grows_and_whatever_stands_before_them() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        let mut reader = Reader::default();
        let mut read = |text: &str| {
            log.write_all(text.as_bytes()).unwrap();
            let found = reader.read(log.path(), ROUND).unwrap().into_iter();
            found
                .map(|at| {
                    format!("{} {} {:?} {}", at.rank, at.node, at.gpus, at.cuda_visible_devices)
                })
                .collect::<Vec<_>>()
        };
        let first =
            "slurm-disagg: rank=0 node=n1 gpus=4,5 CUDA_VISIBLE_DEVICES=0,1\nslurm-disagg: ra";
        assert_eq!(read(first), [r#"0 n1 ["4", "5"] 0,1"#]);
        assert_eq!(read("nk=1 node=n2 gpus= CUDA_VISIBLE_DEVICES="), [""; 0]);
        assert_eq!(
            read("\n50%slurm-disagg: rank=2 node=n2 gpus=GPU-a CUDA_VISIBLE_DEVICES=\n"),
            [r#"1 n2 [] "#, r#"2 n2 ["GPU-a"] "#]
        );
        assert_eq!(read("slurm-disagg: rank=x node=n gpus= CUDA_VISIBLE_DEVICES=\n"), [""; 0]);
    }
}
