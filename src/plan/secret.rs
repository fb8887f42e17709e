// SPDX-License-Identifier: Apache-2.0
//! Which variables hold secrets, by their names.

/// Whether the name of a variable says that its value is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let parts = ["SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"];
    let ends = ["TOKEN", "API_KEY", "ACCESS_KEY", "ACCESS_KEY_ID", "PRIVATE_KEY"];
    parts.iter().any(|part| name.contains(part)) || ends.iter().any(|end| name.ends_with(end))
}
