// SPDX-License-Identifier: Apache-2.0
//! Which variables hold secrets, judged by their names alone: the one list of patterns that plans,
//! logs and diagnostics hide values by.

/// Whether a variable of this name holds a secret, in either case: `*TOKEN`, `*SECRET*`,
/// `*PASSWORD*`, `*PASSPHRASE*`, `*CREDENTIAL*`, `*AUTHORIZATION*`, `*_KEY` (so `*_API_KEY`), `AWS_*` and the like,
/// where a word begins the name or follows `_` or `-`.
pub fn is_secret_name(name: &str) -> bool {
    let is = |word: &[u8], known: &str| word.eq_ignore_ascii_case(known.as_bytes());
    let words = name.as_bytes().split(|byte| matches!(byte, b'_' | b'-'));
    let (mut first, mut last): (Option<&[u8]>, &[u8]) = (None, &[]);
    let mut has_several = false;
    for word in words.filter(|word| !word.is_empty()) {
        let begins =
            |start: &&str| word.get(..start.len()).is_some_and(|beginning| is(beginning, start));
        if CONTAINED.iter().any(begins) || is(word, "PASSWD") {
            return true;
        }
        has_several = first.is_some();
        first = first.or(Some(word));
        last = word;
    }
    has_several && (first.is_some_and(|first| is(first, "AWS")) || is(last, "KEY"))
        || ["TOKEN", "APIKEY", "PAT"].iter().any(|known| is(last, known))
}

/// Whether a name is secret by itself or by a site's list, which may take it out as `-NAME`.
pub fn is_secret(name: &str, listed: &[String]) -> bool {
    let is_listed = |name: &str| listed.iter().any(|one| one == name);
    is_listed(name) || is_secret_name(name) && !is_listed(&format!("-{name}"))
}

/// The first secret that a line gives a value to, and where that begins: `NAME=`, `NAME:`,
/// `"NAME":`, `--name`, before another word.
pub fn given_in(line: &str, is_secret: impl Fn(&str) -> bool) -> Option<(&str, usize)> {
    let has = |wanted: &[u8]| line.bytes().any(|byte| wanted.contains(&byte));
    let (has_words, has_values) = (has(b" \t\"',"), has(b"=:"));
    if !has_words && !has_values {
        return None;
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut at = 0;
    let option = line.split(|c| !is_part(c)).find_map(|word| {
        let end = at + word.len();
        let next = line[end..].chars().next();
        at = end + next.map_or(0, char::len_utf8);
        let name = word.strip_prefix("--")?.trim_start_matches('-');
        let is_before_word = matches!(next, Some(' ' | '\t' | '"' | '\'' | ','));
        (is_before_word && is_secret(name)).then_some((name, end))
    });
    let values = line.match_indices(['=', ':']).map(|(at, _)| at + 1);
    let mut from = 0;
    for at in values {
        let before = line[from..at - 1].trim_end_matches([' ', '\t', '"', '\'']);
        let name = before.rsplit(|c| !is_part(c)).next().unwrap_or_default();
        if is_secret(name) {
            let given = Some((name, at));
            return option.filter(|option| option.1 < at).or(given);
        }
        from = at;
    }
    option
}

/// How words of a name begin that make it a secret wherever they stand in it.
const CONTAINED: [&str; 5] = ["SECRET", "PASSWORD", "PASSPHRASE", "CREDENTIAL", "AUTHORIZATION"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tokens_keys_and_passwords_are_secret() {
        for name in [
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "hf_token",
            "TOKEN",
            "WANDB_API_KEY",
            "--api-key",
            "SSH_PRIVATE_KEY",
            "MY_SECRET_2",
            "CLIENT_SECRETS",
            "DB_PASSWORD",
            "PASSWORD_FILE",
            "REDIS_PASSWD",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "AWS_SESSION_ID",
            "Authorization",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn other_names_are_not() {
        for name in [
            "",
            "_",
            "MAX_TOKENS",
            "TOKENIZERS_PARALLELISM",
            "KEY",
            "key",
            "AWS",
            "MONKEY",
            "NCCL_DEBUG",
            "KEYBOARD_LAYOUT",
            "PATH",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
