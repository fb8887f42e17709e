// SPDX-License-Identifier: Apache-2.0
//! Reading a file that anybody may have put there: bounded, never blocking, UTF-8.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location, Source};

/// The largest configuration, test list or settings file that is read, in bytes. The largest
/// real ones are a hundredth of it.
pub const MAX_FILE: u64 = 4 << 20;

/// Opens a file to read it, without waiting for anybody: a FIFO would wait for a writer.
///
/// # Errors
/// Those of the system; it is a directory, a FIFO, a device or the like.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.file_type() {
        kind if kind.is_file() => Ok(file),
        kind if kind.is_dir() => Err(io::Error::other("is a directory")),
        _ => Err(io::Error::other("is not a regular file")),
    }
}

/// Opens a regular file that is below a directory, wherever links in its path lead. The open file
/// is looked at, since whoever owns the directory may change a path at any time.
///
/// # Errors
/// As [`open`]; the file is elsewhere.
pub fn open_below(directory: &Path, path: &str) -> io::Result<File> {
    let directory = directory.canonicalize()?;
    let file = open(&directory.join(path))?;
    let place = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    match place.starts_with(&directory) {
        true => Ok(file),
        false => Err(io::Error::other("is not in the workspace")),
    }
}

/// Reads a text file whole; messages call it `shown`.
///
/// # Errors
/// One [`Diagnostic`] that says why: missing, unreadable, not a regular file (a FIFO would hang
/// the submission), larger than [`MAX_FILE`], not UTF-8 (with the position of the first bad byte).
pub fn read(path: &Path, shown: &str) -> Result<Arc<Source>, Diagnostic> {
    let name = shown.to_owned();
    let fail = |what: String| Err(Diagnostic::error(format!("{name}: {what}")));
    let mut file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::Other => return fail(error.to_string()),
        Err(error) => return fail(format!("cannot be opened: {error}")),
    };
    let length = match file.metadata() {
        Ok(metadata) if metadata.len() > MAX_FILE => return fail(too_large(metadata.len())),
        Ok(metadata) => metadata.len(),
        Err(error) => return fail(format!("cannot be read: {error}")),
    };
    let mut bytes = Vec::with_capacity(length as usize + 1);
    if let Err(error) = file.by_ref().take(MAX_FILE + 1).read_to_end(&mut bytes) {
        return fail(format!("cannot be read: {error}"));
    }
    if bytes.len() as u64 > MAX_FILE {
        return fail(too_large(bytes.len() as u64));
    }
    decode(name, bytes)
}

fn too_large(length: u64) -> String {
    format!("is {length} bytes long; at most {MAX_FILE} are read")
}

/// Takes the bytes of a file as text.
///
/// # Errors
/// The position of the first byte that is not UTF-8.
pub fn decode(name: String, bytes: Vec<u8>) -> Result<Arc<Source>, Diagnostic> {
    let other = match bytes.get(..4).unwrap_or(&bytes) {
        [0xff, 0xfe, 0, 0] | [0, 0, 0xfe, 0xff] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        [a, 0, b, 0] | [0, a, 0, b] if *a != 0 && *b != 0 => Some("UTF-16"),
        _ => None,
    };
    if let Some(other) = other {
        return Err(Diagnostic::error(format!("{name}: is {other}, not UTF-8"))
            .help(format!("save it as UTF-8, or convert it: iconv -f {other} -t UTF-8")));
    }
    let start = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    String::from_utf8(bytes)
        .map(|mut text| {
            text.drain(..start);
            Arc::new(Source::new(name.as_str(), text))
        })
        .map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let good = String::from_utf8_lossy(&error.as_bytes()[start.min(valid)..valid]);
            let source = Arc::new(Source::new(name.as_str(), good));
            let position = source.position(source.text.len());
            Diagnostic::error("is not UTF-8 text")
                .at(Location { source, position })
                .help("save it as UTF-8; if it is Chinese text in GBK: iconv -f GBK -t UTF-8")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        decode("a.yaml".into(), bytes.to_vec()).unwrap_err().to_string()
    }

    #[test]
    fn other_encodings_are_named() {
        let utf16 = |bytes: &dyn Fn(u16) -> [u8; 2], mark: &str| -> Vec<u8> {
            format!("{mark}a: 1\n").encode_utf16().flat_map(bytes).collect()
        };
        for mark in ["", "\u{feff}"] {
            for bytes in [&u16::to_le_bytes as &dyn Fn(u16) -> [u8; 2], &u16::to_be_bytes] {
                let error = refused(&utf16(bytes, mark));
                assert!(error.starts_with("error: a.yaml: is UTF-16, not UTF-8"), "{error}");
            }
        }
        let error = refused(b"a: 1\r\nb: \xc4\xe3\xba\xc3\n");
        assert!(error.starts_with("a.yaml:2:4: error: is not UTF-8 text\n 2 | b:\n"), "{error}");
        assert!(error.contains("GBK"), "{error}");
    }

    #[test]
    fn a_byte_order_mark_is_left_out() {
        let source = decode("a".into(), b"\xef\xbb\xbfa: 1".to_vec()).unwrap();
        assert_eq!(source.text, "a: 1");
        assert!(refused(b"\xef\xbb\xbfa\xff").starts_with("a.yaml:1:2: "));
    }
}
