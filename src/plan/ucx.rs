// SPDX-License-Identifier: Apache-2.0
//! What UCX, which carries the servers' caches between nodes, needs by generation of GPU.
//!
//! Source: the test suite's launcher chooses by the name of the pipeline's stage. The table is
//! data; a site puts rows of its own in front of it.

use super::assignments::Assignment;
use super::template::Template;

/// What the steps of one generation of GPU remove from and put into their environment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// What the stage's name or the GPU's contains, in capitals.
    pub gpu: String,
    /// Variables that are removed.
    pub unset: Vec<String>,
    /// Variables that are set before the role's own, which win.
    pub export: Vec<Assignment>,
}

/// GPU, what is unset, what is exported.
type Known = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// The rows that every site has, the first that fits counts. GB300 and GB200 come before B200,
/// which their names contain or may stand beside.
const ROWS: &[Known] = &[
    ("GB300", &[], &[(TLS, "cuda_copy,cuda_ipc,sm,self,tcp")]),
    ("GB200", &[TLS, NET_DEVICES], &[]),
    ("B200", &[], &[(TLS, "^ib")]),
];

/// What GPUs without a row get: UCX chooses transports and devices by itself.
const OTHERWISE: &[&str] = &[TLS, NET_DEVICES];

const TLS: &str = "UCX_TLS";
const NET_DEVICES: &str = "UCX_NET_DEVICES";

/// The row for a stage or a GPU by name; `site` comes first.
pub fn row(site: &[Row], name: &str) -> Row {
    let name = name.to_uppercase();
    let fits = |gpu: &str| !gpu.is_empty() && name.contains(&gpu.to_uppercase());
    if let Some(row) = site.iter().find(|row| fits(&row.gpu)) {
        return row.clone();
    }
    let own = ROWS.iter().find(|(gpu, ..)| fits(gpu));
    let (gpu, unset, export) = own.copied().unwrap_or(("", OTHERWISE, &[]));
    Row {
        gpu: gpu.to_owned(),
        unset: unset.iter().map(|name| (*name).to_owned()).collect(),
        export: export
            .iter()
            .map(|(name, value)| Assignment {
                name: (*name).to_owned(),
                value: Template::literal(value),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_that_the_name_contains_counts() {
        for (name, gpu) in [
            ("GB300-and-B200", "GB300"),
            ("B200-and-GB200", "GB200"),
            ("gb300-lower-case", "GB300"),
            ("DGX_B200-16", "B200"),
            ("DGX_H200-8", ""),
            ("", ""),
        ] {
            assert_eq!(row(&[], name).gpu, gpu, "{name}");
        }
    }

    #[test]
    fn the_rows_of_the_site_come_first() {
        let site = [Row { gpu: "h200".into(), unset: vec!["X".into()], export: vec![] }];
        assert_eq!(row(&site, "DGX_H200-8").unset, ["X"]);
        assert_eq!(row(&site, "B200").gpu, "B200");
    }
}
