// SPDX-License-Identifier: Apache-2.0
//! Where the plugin under test is.

use std::env;
use std::path::PathBuf;

/// The plugin's file: from the build directory when `DISAGG_BUILD_DIR` names it, else the one that
/// cargo built beside this test.
pub fn plugin_file() -> PathBuf {
    if let Some(dir) = env::var_os("DISAGG_BUILD_DIR") {
        return PathBuf::from(dir).join("job_submit_disagg.so");
    }
    let test = env::current_exe().expect("a test knows its own path");
    test.with_file_name("libjob_submit_disagg.so")
}
