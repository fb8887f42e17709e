// SPDX-License-Identifier: Apache-2.0
//! Reading a file that anybody may have put there: bounded, never blocking, UTF-8.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location, Position, Source};

/// The largest configuration, test list or settings file that is read, in bytes. The largest
/// real ones are a hundredth of it.
pub const MAX_FILE: u64 = 4 << 20;

/// Reads a text file whole; messages call it `shown`.
///
/// # Errors
/// One [`Diagnostic`] that says why: missing, unreadable, not a regular file (a FIFO would hang
/// the submission), larger than [`MAX_FILE`], not UTF-8 (with the position of the first bad byte).
pub fn read(path: &Path, shown: &str) -> Result<Arc<Source>, Diagnostic> {
    let name = shown.to_owned();
    let fail = |what: String| Err(Diagnostic::error(format!("{name}: {what}")));
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) => return fail(format!("cannot be opened: {error}")),
    };
    let length = match file.metadata() {
        Ok(metadata) if metadata.is_dir() => return fail("is a directory".into()),
        Ok(metadata) if !metadata.is_file() => return fail("is not a regular file".into()),
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
    let start = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    String::from_utf8(bytes)
        .map(|mut text| {
            text.drain(..start);
            Arc::new(Source { name: name.clone(), text })
        })
        .map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let good = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
            let column = good.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            let position = Position {
                line: (good.matches('\n').count() + 1) as u32,
                column: column as u32,
                length: 1,
            };
            let source = Arc::new(Source { name, text: good });
            Diagnostic::error("is not UTF-8 text").at(Location { source, position })
        })
}
