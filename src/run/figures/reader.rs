// SPDX-License-Identifier: Apache-2.0
//! The result files of benchmark clients, as tables: which files, which of their names means which
//! metric. One reader understands all of them; for a new client, add a table.
//!
//! The names are those of aiperf 0.13, `vllm bench serve` 0.32, `sglang.bench_serving` 0.5, and the
//! benchmark_serving scripts of TensorRT-LLM and sa-bench, which descend from vLLM's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::Measurement;
use super::flat::{self, Flat, Scalar};
use super::metric::{COMPLETED, FAILED};

/// The files of one client, or of a family of clients.
#[derive(Debug)]
pub struct Reader {
    /// What the client is called.
    pub client: &'static str,
    /// The names of its files; `*` matches any text.
    pub files: &'static [&'static str],
    /// Whether the name alone shows that a file is this client's.
    pub is_known_by_name: bool,
    /// What the files are.
    pub form: Form,
    /// Metrics, and the names that mean them; the first one that is there counts.
    fields: &'static [(&'static str, &'static [&'static str])],
    /// Latencies, and what their names look like; `{}` is one of `statistics`.
    latencies: &'static [(&'static str, &'static [&'static str])],
    /// Statistics of a latency, and the words for them.
    statistics: &'static [(&'static str, &'static [&'static str])],
    /// Fields, one of which a measurement has.
    needs: &'static [&'static str],
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object.
    Json,
    /// A JSON object on each line; a client may append to lines of earlier runs.
    Lines,
    /// A heading and a row for each measurement.
    Csv,
    /// What the client prints: `Name (unit):   value`, among anything else.
    Text,
}

/// One measurement of a file: values by the name of their metric, and what decides about them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// How many requests were under way at a time.
    pub concurrency: Option<f64>,
    /// The metrics.
    pub values: BTreeMap<String, f64>,
    /// Whether the client was stopped before its end.
    pub is_cut_short: bool,
}

/// Names that mean no metric, but are used to compute one.
const CONCURRENCY: &str = "concurrency";
const REQUESTED: &str = "requested";
const CANCELLED: &str = "cancelled";
const IS_COMPLETE: &str = "is_complete";

const AIPERF: Reader = Reader {
    client: "aiperf",
    files: &["profile_export_aiperf.json"],
    is_known_by_name: true,
    form: Form::Json,
    fields: &[
        (CONCURRENCY, &["input_config.loadgen.concurrency"]),
        (COMPLETED, &["request_count.avg"]),
        (FAILED, &["error_request_count.avg"]),
        (REQUESTED, &["completed_request_count.avg"]),
        (CANCELLED, &["was_cancelled"]),
        (IS_COMPLETE, &["is_complete"]),
        ("duration_s", &["benchmark_duration.avg"]),
        ("request_throughput", &["request_throughput.avg"]),
        ("output_throughput", &["output_token_throughput.avg"]),
        ("total_throughput", &["total_token_throughput.avg"]),
        ("user_throughput", &["output_token_throughput_per_user.avg"]),
    ],
    latencies: &[
        ("ttft", &["time_to_first_token.{}"]),
        ("itl", &["inter_token_latency.{}"]),
        ("latency", &["request_latency.{}"]),
    ],
    statistics: &[
        ("mean", &["avg"]),
        ("p50", &["p50"]),
        ("p90", &["p90"]),
        ("p95", &["p95"]),
        ("p99", &["p99"]),
    ],
    needs: &[],
};

const SERVING: Reader = Reader {
    client: "benchmark_serving",
    files: &["*.json"],
    is_known_by_name: false,
    form: Form::Json,
    fields: &[
        (CONCURRENCY, &["max_concurrency"]),
        (COMPLETED, &["completed"]),
        (FAILED, &["failed", "num_failed"]),
        (REQUESTED, &["num_prompts", "total_requests"]),
        ("duration_s", &["duration"]),
        ("request_throughput", &["request_throughput"]),
        ("output_throughput", &["output_throughput", "output_token_throughput"]),
        ("total_throughput", &["total_token_throughput", "total_throughput"]),
        ("user_throughput", &["user_throughput"]),
    ],
    latencies: &[
        ("ttft", &["{}_ttft_ms"]),
        ("tpot", &["{}_tpot_ms"]),
        ("itl", &["{}_itl_ms"]),
        ("latency", &["{}_e2el_ms", "{}_e2e_latency_ms"]),
    ],
    statistics: &[
        ("mean", &["mean"]),
        ("p50", &["median", "p50"]),
        ("p90", &["p90"]),
        ("p95", &["p95"]),
        ("p99", &["p99"]),
    ],
    needs: &["request_throughput", "output_throughput"],
};

/// The readers of files, in the order in which they are tried.
pub const READERS: &[Reader] = &[
    AIPERF,
    Reader {
        client: "sa-bench",
        files: &["results_concurrency_*.json"],
        is_known_by_name: true,
        ..SERVING
    },
    SERVING,
    Reader { client: "bench_serving", files: &["*.jsonl"], form: Form::Lines, ..SERVING },
    Reader { client: "pytest", files: &["report.csv"], form: Form::Csv, ..SERVING },
    Reader { files: &["trtllm-benchmark*.log"], ..PRINTED },
];

/// What the clients of that family print, into the log of the client or into a file of its own.
pub const PRINTED: Reader = Reader {
    client: "benchmark_serving",
    files: &[],
    is_known_by_name: false,
    form: Form::Text,
    fields: &[
        (CONCURRENCY, &["maximum request concurrency", "max request concurrency"]),
        (COMPLETED, &["successful requests"]),
        (FAILED, &["failed requests"]),
        (REQUESTED, &["num_prompts", "total requests"]),
        ("duration_s", &["benchmark duration (s)"]),
        ("request_throughput", &["request throughput (req/s)"]),
        ("output_throughput", &["output token throughput (tok/s)"]),
        ("total_throughput", &["total token throughput (tok/s)", "total throughput (tok/s)"]),
        ("user_throughput", &["user throughput (tok/s)"]),
    ],
    latencies: &[
        ("ttft", &["{} ttft (ms)"]),
        ("tpot", &["{} tpot (ms)"]),
        ("itl", &["{} itl (ms)"]),
        ("latency", &["{} e2el (ms)", "{} e2e latency (ms)"]),
    ],
    needs: &["successful requests"],
    ..SERVING
};

/// Milliseconds in the units that files name.
const MILLISECONDS: [(&str, f64); 5] =
    [("ns", 1e-6), ("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("sec", 1e3)];

impl Reader {
    /// Whether a file of this name may be the client's.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        self.files.iter().any(|pattern| match pattern.split_once('*') {
            Some((before, after)) => {
                let rest = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                rest.is_some()
            }
            None => name == *pattern,
        })
    }

    /// Whether the client may append to what earlier runs wrote.
    #[must_use]
    pub fn may_append(&self) -> bool {
        matches!(self.form, Form::Lines | Form::Text)
    }

    /// The measurements in a file's bytes; none in a file of another program.
    ///
    /// # Errors
    /// The bytes are not of the form.
    pub fn read(&self, bytes: &[u8]) -> io::Result<Vec<Record>> {
        let sections = match self.form {
            Form::Json => vec![flat::object(bytes)?],
            Form::Lines => bytes
                .split(|byte| *byte == b'\n')
                // A client that is killed leaves half a line.
                .filter_map(|line| flat::object(line).ok())
                .collect(),
            Form::Csv => flat::rows(bytes)?,
            Form::Text => self.printed(bytes),
        };
        let is_one = |section: &Flat| {
            self.needs.is_empty() || self.needs.iter().any(|name| section.contains_key(*name))
        };
        Ok(sections.iter().filter(|section| is_one(section)).map(|one| self.record(one)).collect())
    }

    fn record(&self, section: &Flat) -> Record {
        let number = |names: &[&str]| {
            let mut found = names.iter().filter_map(|name| section.get(*name)?.number());
            found.next()
        };
        let mut values = BTreeMap::new();
        for (metric, names) in self.fields {
            values.extend(number(names).map(|value| ((*metric).to_owned(), value)));
        }
        for (latency, patterns) in self.latencies {
            for (statistic, words) in self.statistics {
                let names = patterns.iter().flat_map(|pattern| {
                    words.iter().map(move |word| (pattern, pattern.replace("{}", word)))
                });
                let mut found = names.filter_map(|(pattern, name)| {
                    let value = section.get(&name)?.number()?;
                    // aiperf names the unit beside the value.
                    match section.get(&pattern.replace("{}", "unit")) {
                        Some(Scalar::Text(unit)) => {
                            let known = MILLISECONDS.iter().find(|(name, _)| name == unit)?;
                            Some(value * known.1)
                        }
                        _ => Some(value),
                    }
                });
                let name = format!("{latency}_{statistic}_ms");
                values.extend(found.next().map(|value| (name, value)));
            }
        }
        let mut take = |name: &str| values.remove(name);
        let (concurrency, requested) = (take(CONCURRENCY), take(REQUESTED));
        let is_cut_short = take(CANCELLED) == Some(1.0) || take(IS_COMPLETE) == Some(0.0);
        let mut record = Record { concurrency, values, is_cut_short };
        record.derive(requested, self.is_known_by_name);
        record
    }

    /// All names that mean something.
    fn names(&self) -> BTreeSet<String> {
        let words = || self.statistics.iter().flat_map(|(_, words)| *words);
        let patterns = self.latencies.iter().flat_map(|(_, patterns)| *patterns);
        let latencies =
            patterns.flat_map(|pattern| words().map(move |word| pattern.replace("{}", word)));
        let fields = self.fields.iter().flat_map(|(_, names)| *names);
        fields.map(|name| (*name).to_owned()).chain(latencies).collect()
    }

    /// What a client printed, as one section for each measurement, which begins with the name that it
    /// needs. What the client was asked for is printed earlier.
    fn printed(&self, bytes: &[u8]) -> Vec<Flat> {
        let text = String::from_utf8_lossy(bytes);
        let known = self.names();
        let is_early = |name: &str| {
            let mut early =
                self.fields.iter().filter(|field| [CONCURRENCY, REQUESTED].contains(&field.0));
            early.any(|(_, names)| names.contains(&name))
        };
        let (mut early, mut sections) = (Flat::new(), Vec::<Flat>::new());
        for line in text.split(['\n', '\r']) {
            let line = line.trim();
            let found = match line.split_once("num_prompts=") {
                // The client's options, as Python prints them.
                Some((before, rest)) if before.contains("Namespace(") => {
                    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                    Some(("num_prompts".to_owned(), &rest[..end]))
                }
                _ => line.rsplit_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value)),
            };
            let Some((name, value)) = found.filter(|(name, _)| known.contains(name)) else {
                continue;
            };
            let value = Scalar::Text(value.trim().to_owned());
            if is_early(&name) {
                early.insert(name.clone(), value.clone());
            } else if self.needs.contains(&name.as_str()) {
                sections.push(early.clone());
            }
            if let Some(section) = sections.last_mut() {
                section.entry(name).or_insert(value);
            }
        }
        // pytest prints the output of a failed test again.
        let mut seen: Vec<Flat> = Vec::new();
        for section in sections {
            if !seen.contains(&section) {
                seen.push(section);
            }
        }
        seen
    }
}

impl Record {
    /// The measurement of a client, from one of its files.
    #[must_use]
    pub fn named(self, client: &str, file: &str) -> Measurement {
        Measurement {
            client: client.to_owned(),
            file: file.to_owned(),
            concurrency: self.concurrency.map(|number| number as u64),
            cut_short: self.is_cut_short,
            metrics: self.values,
        }
    }

    /// Computes the counts that the client leaves out. Where only this client writes such a file, one
    /// without any count means that it completed nothing.
    fn derive(&mut self, requested: Option<f64>, has_counts: bool) {
        let get = |record: &Self, name: &str| record.values.get(name).copied();
        let (mut completed, mut failed) = (get(self, COMPLETED), get(self, FAILED));
        if let Some(requested) = requested {
            completed = completed.or(failed.map(|failed| (requested - failed).max(0.0)));
            failed = failed.or(completed.map(|completed| (requested - completed).max(0.0)));
        }
        if has_counts {
            completed = completed.or(Some(0.0));
        }
        for (name, value) in [(COMPLETED, completed), (FAILED, failed)] {
            self.values.extend(value.map(|value| (name.to_owned(), value)));
        }
    }
}
