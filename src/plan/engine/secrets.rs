// SPDX-License-Identifier: Apache-2.0
//! Secrets among the words of commands, where every user of a node can read them.

use super::Planner;
use crate::diagnostic::Diagnostic;
use crate::plan::expr::Pattern;
use crate::plan::origin::{Origin, Traced};
use crate::plan::secret;
use crate::plan::template::Template;

impl Planner<'_> {
    /// Refuses secrets among the words that the recipe and the profile have for commands.
    pub(super) fn refuse_secrets(&mut self) {
        let (recipe, profile) = (self.recipe, self.profile);
        for role in recipe.roles.values() {
            for (name, value) in &role.args {
                let words = profile.syntax.words(name, &value.value);
                self.refuse(words.iter().map(|word| (word.as_str(), &value.origin)));
            }
            self.refuse_in(role.before.iter());
            let nsys = role.nsys.iter();
            let nsys =
                nsys.flat_map(|nsys| nsys.value.args.iter().map(|word| (&**word, &nsys.origin)));
            self.refuse(nsys);
            self.refuse(role.wrap.iter().map(|word| (word.value.as_str(), &word.origin)));
        }
        for role in profile.roles.values() {
            let mut words = Vec::new();
            role.command.words(&mut |word| words.push(word));
            self.refuse_in(words.into_iter());
        }
        if let Some(benchmark) = &recipe.benchmark {
            self.refuse(benchmark.args.iter().map(|word| (word.value.as_str(), &word.origin)));
            self.refuse_in(benchmark.command.iter().flatten());
        }
    }

    fn refuse_in<'w>(&mut self, words: impl Iterator<Item = &'w Traced<Pattern>>) {
        // The dollar signs of a literal word are doubled, and what has one is no secret.
        let text = |word: &'w Traced<Pattern>| word.value.literal().map_or("{}", Template::as_str);
        self.refuse(words.map(|word| (text(word), &word.origin)));
    }

    /// `NAME=VALUE`, `--name=VALUE`, `"name": VALUE`, and `--name` before a value.
    fn refuse<'w>(&mut self, words: impl Iterator<Item = (&'w str, &'w Origin)>) {
        let listed = &self.request.secrets;
        let is_secret = |name: &str| secret::is_secret(name.trim_start_matches('-'), listed);
        let mut option: Option<&str> = None;
        for (word, origin) in words {
            // What refers to a variable has no secret in it.
            let is_value = |text: &str| !text.trim().is_empty() && !text.contains('$');
            let before = option.take().filter(|_| !word.starts_with('-') && is_value(word));
            let given = secret::given_in(word, is_secret);
            let given = given.filter(|(_, at)| is_value(&word[*at..])).map(|(name, _)| name);
            let found = before.or(given);
            if let Some(name) = found.map(|name| name.trim_start_matches('-')) {
                let message = format!(
                    "{}: {name} is a secret, and every user of a node can read the words of a command",
                    origin.input
                );
                let help = format!(
                    "set a variable in `env`, where the program reads one; what is no secret is listed as \
                     -{name} under `secrets` in site.yaml"
                );
                let at = origin.location.clone();
                self.errors.push_once(Diagnostic::error(message).at(at).help(help));
            }
            option = Some(word).filter(|word| word.starts_with('-') && is_secret(word));
        }
    }
}
