// SPDX-License-Identifier: Apache-2.0
//! What UCX, which carries the servers' caches between nodes, needs on a cluster and on a
//! generation of GPU: tables, to which a site adds rows in front.
//!
//! Source: the launchers of the test suite.

use super::assignments::Assignment;
use super::template::Template;

/// What steps remove from and put into their environment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// The pattern of the cluster's name; empty for any.
    pub cluster: String,
    /// The pattern of the GPU's name; empty for any.
    pub gpu: String,
    /// Variables that are removed.
    pub unset: Vec<String>,
    /// Variables that are set before the role's own, which win.
    pub export: Vec<Assignment>,
}

/// Cluster, GPU, what is unset, what is exported.
type Known =
    (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// What the rules of one set say.
#[derive(Debug)]
pub struct Table {
    /// What is unset in any case.
    common: &'static [&'static str],
    /// The first that fits counts.
    rows: &'static [Known],
}

const TLS: &str = "UCX_TLS";
const NET_DEVICES: &str = "UCX_NET_DEVICES";

/// UCX chooses transports by itself.
pub const CLASSIC: Table = Table { common: &[TLS], rows: &[] };

/// GPUs without a row of their own: UCX chooses transports and devices by itself.
pub const BY_GPU: Table = Table {
    common: &[],
    rows: &[
        ("*", "GB300", &[], &[(TLS, "cuda_copy,cuda_ipc,sm,self,tcp")]),
        ("*", "B200", &[], &[(TLS, "^ib")]),
        ("*", "*", &[TLS, NET_DEVICES], &[]),
    ],
};

/// Clusters without a row: UCX chooses by itself.
pub const BY_CLUSTER: Table = Table {
    common: &["UCX_CUDA_IPC_ENABLE_MNNVL", TLS, NET_DEVICES],
    rows: &[
        (
            "gcp-nrt*",
            "*",
            &[],
            &[
                (
                    NET_DEVICES,
                    "rocep145s0:1,rocep146s0:1,rocep152s0:1,rocep153s0:1,\
                     rocep198s0:1,rocep199s0:1,rocep205s0:1,rocep206s0:1",
                ),
                ("UCX_IB_GID_INDEX", "auto"),
                ("UCX_IB_TRAFFIC_CLASS", "52"),
                ("UCX_IB_SL", "0"),
            ],
        ),
        (
            "oci-aga*",
            "*",
            &[],
            &[(TLS, "cuda_ipc,cuda_copy,sm,self,tcp"), ("UCX_TCP_AF_PRIO", "inet")],
        ),
        (
            "nsc-svg*",
            "*",
            &[],
            &[(
                NET_DEVICES,
                "mlx5_0:1,mlx5_1:1,mlx5_2:1,mlx5_3:1,mlx5_4:1,mlx5_5:1,mlx5_10:1,mlx5_11:1",
            )],
        ),
        (
            "aws-cmh*",
            "*",
            &[],
            &[
                (TLS, "cuda_ipc,cuda_copy,sm,self,tcp"),
                (
                    NET_DEVICES,
                    "eth0,mlx5_0:1,mlx5_1:1,mlx5_2:1,mlx5_3:1,\
                     mlx5_4:1,mlx5_5:1,mlx5_6:1,mlx5_7:1",
                ),
            ],
        ),
        ("aws-dfw*", "*", &[], &[(TLS, "^gdr_copy")]),
    ],
};

/// The generations of GPU, each before those whose names are a part of its own.
const GPUS: [&str; 8] = ["GB300", "GB200", "GB10X", "B300", "B200", "H200", "H100", "A100"];

/// The generation of GPU that a stage or a longer name contains; the name itself when it has none.
pub fn gpu(name: &str) -> String {
    let name = name.to_uppercase();
    GPUS.into_iter().find(|gpu| name.contains(gpu)).map_or(name, str::to_owned)
}

impl Table {
    /// The row for a cluster and a GPU; those of the site come first.
    pub fn row(&self, site: &[Row], cluster: &str, gpu: &str) -> Row {
        let fits = |pattern: &str, name: &str| {
            pattern.is_empty() || matches(&pattern.to_uppercase(), &name.to_uppercase())
        };
        let own = site.iter().find(|row| fits(&row.cluster, cluster) && fits(&row.gpu, gpu));
        let mut row = own.cloned().unwrap_or_else(|| {
            let known = self.rows.iter().find(|row| fits(row.0, cluster) && fits(row.1, gpu));
            let (cluster, gpu, unset, export) = known.copied().unwrap_or(("*", "*", &[], &[]));
            let assignment = |(name, value): &(&str, &str)| Assignment {
                name: (*name).to_owned(),
                value: Template::literal(value),
            };
            Row {
                cluster: cluster.to_owned(),
                gpu: gpu.to_owned(),
                unset: unset.iter().map(|name| (*name).to_owned()).collect(),
                export: export.iter().map(assignment).collect(),
            }
        });
        let common = self.common.iter().map(|name| (*name).to_owned());
        row.unset = common.chain(row.unset).collect();
        row
    }
}

/// Whether a name as a whole fits a pattern, in which `*` matches any text and `?` any one
/// character.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut in_name) = (0, 0);
    // What stands behind the last `*`, and how much of the name that takes so far.
    let mut star = None;
    while in_name < name.len() || at < pattern.len() {
        match (pattern.get(at), name.get(in_name)) {
            (Some('*'), _) => {
                at += 1;
                star = Some((at, in_name));
            }
            (Some(one), Some(c)) if *one == '?' || one == c => {
                (at, in_name) = (at + 1, in_name + 1);
            }
            _ => match star {
                Some((behind, taken)) if taken < name.len() => {
                    (at, in_name) = (behind, taken + 1);
                    star = Some((behind, taken + 1));
                }
                _ => return false,
            },
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_a_whole_name() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("aws-*", "aws-cmh-1", true),
            ("aws-*", "xaws-", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("gb?00", "gb200", true),
            ("a?", "a", false),
            ("*b", "abb", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn the_name_of_a_stage_contains_that_of_its_gpu() {
        for (stage, tls) in [
            ("GB300-and-B200", "cuda_copy,cuda_ipc,sm,self,tcp"),
            ("B200-and-GB200", ""),
            ("gb300-lower-case", "cuda_copy,cuda_ipc,sm,self,tcp"),
            ("DGX_B200-16", "^ib"),
            ("DGX_H200-8", ""),
            ("", ""),
        ] {
            let row = BY_GPU.row(&[], "", &gpu(stage));
            let found = row.export.first().map_or("", |one| one.value.as_str());
            assert_eq!(found, tls, "{stage}");
        }
    }

    #[test]
    fn the_rows_of_the_site_come_first_and_keep_what_is_always_unset() {
        let site = [Row { gpu: "h?00".into(), unset: vec!["X".into()], ..Row::default() }];
        assert_eq!(BY_GPU.row(&site, "", &gpu("DGX_H200-8")).unset, ["X"]);
        assert_eq!(BY_GPU.row(&site, "", "B200").export.len(), 1);
        let row = BY_CLUSTER.row(&site, "aws-cmh-1", "H100");
        assert_eq!(row.unset, ["UCX_CUDA_IPC_ENABLE_MNNVL", TLS, NET_DEVICES, "X"]);
        assert_eq!(BY_CLUSTER.row(&site, "AWS-CMH-1", "B200").export.len(), 2);
        assert!(BY_CLUSTER.row(&[], "", "B200").export.is_empty());
    }
}
