//! A mutant, as its file has it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::rules;
use super::suite::Suite;

/// One way to break a rule.
#[derive(Debug, Clone)]
pub(crate) struct Mutant {
    /// The file's name, without its ending.
    pub(crate) name: String,
    pub(crate) file: File,
}

/// A file of `tests/mutants`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// The contract's rule that it breaks.
    pub(crate) rule: String,
    /// What is broken, in a sentence.
    pub(crate) what: String,
    /// Which source file is changed, from the workspace's root.
    pub(crate) file: String,
    /// What stands there, just once.
    pub(crate) find: String,
    /// What stands there instead.
    pub(crate) replace: String,
    /// Parts of the names of the tests that must notice. One that fails is enough.
    pub(crate) caught_by: Vec<String>,
    /// The package with the tests.
    #[serde(default = "contract")]
    pub(crate) package: String,
    /// How the tests are run.
    #[serde(default)]
    pub(crate) command: Command,
    /// The simulation finds it too, without a test that was written for it.
    #[serde(default)]
    pub(crate) simulated: bool,
}

/// How a mutant's tests are run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Command {
    /// By `cargo test`.
    #[default]
    Test,
    /// Under the model checker.
    Loom,
    /// By `cargo test`, over so many simulated I/Os as a mutant may take to be found.
    Simulation,
}

fn contract() -> String {
    rules::PACKAGE.to_owned()
}

/// All mutants, in the order of the rules.
pub(crate) fn read_all(folder: &Path) -> Result<Vec<Mutant>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut mutants = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("{} cannot be read", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            let file = read(&text).with_context(|| format!("mutant {name} is not understood"))?;
            mutants.push(Mutant { name, file });
        }
    }
    mutants.sort_by_cached_key(|mutant| (rules::order(&mutant.file.rule), mutant.name.clone()));
    Ok(mutants)
}

fn read(text: &str) -> Result<File> {
    // The parser draws the line with the mistake; errors here are one line.
    toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.message().replace('\n', " ")))
}

/// The mutants of a rule, if the filter is one's number; otherwise those with it in their names.
pub(crate) fn matching(mut mutants: Vec<Mutant>, filter: Option<&str>) -> Vec<Mutant> {
    let Some(filter) = filter else { return mutants };
    let of_rule = mutants.iter().any(|mutant| mutant.file.rule.eq_ignore_ascii_case(filter));
    mutants.retain(
        |mutant| {
            if of_rule { mutant.file.rule.eq_ignore_ascii_case(filter) } else { mutant.name.contains(filter) }
        },
    );
    mutants
}

impl Mutant {
    /// The same, to be caught by the simulation.
    pub(crate) fn in_simulation(mut self) -> Self {
        self.file.package = "doorbell-simulate".to_owned();
        self.file.caught_by = vec!["simulated_".to_owned()];
        self.file.command = Command::Simulation;
        self
    }

    pub(crate) fn suite(&self) -> Suite {
        Suite { package: self.file.package.clone(), command: self.file.command }
    }

    /// The source with the mutant in it.
    pub(crate) fn applied(&self, source: &str) -> Result<String> {
        let times = source.matches(&self.file.find).count();
        ensure!(times == 1, "its text stands {times} times in {}", self.file.file);
        Ok(source.replacen(&self.file.find, &self.file.replace, 1))
    }

    /// What is wrong with the file, as far as can be seen without running it.
    pub(crate) fn problems(&self, root: &Path, rules: &[String], tests: &[String]) -> Vec<String> {
        let Self { name, file } = self;
        let mut problems = Vec::new();
        let mut wrong = |what: String| problems.push(format!("mutant {name}: {what}"));
        if !rules.contains(&file.rule) {
            wrong(format!("{} has no rule {}", rules::CONTRACT, file.rule));
        }
        if !name.to_lowercase().starts_with(&format!("{}-", file.rule.to_lowercase())) {
            wrong(format!("its file's name does not begin with {}-", file.rule.to_lowercase()));
        }
        if file.find == file.replace {
            wrong("it changes nothing".to_owned());
        }
        match fs::read_to_string(root.join(&file.file)) {
            Ok(source) => {
                if let Err(error) = self.applied(&source) {
                    wrong(error.to_string());
                }
            }
            Err(error) => wrong(format!("{} cannot be read: {error}", file.file)),
        }
        if file.caught_by.is_empty() {
            wrong("no test is named to catch it".to_owned());
        }
        if file.package == rules::PACKAGE {
            // A filter with a path cannot be looked up among names.
            let unknown = |filter: &&String| !filter.contains(':') && !tests.iter().any(|test| test.contains(*filter));
            file.caught_by.iter().filter(unknown).for_each(|filter| wrong(format!("there is no test {filter}")));
        }
        problems
    }
}

#[cfg(test)]
pub(crate) mod unit {
    use super::*;

    pub(crate) fn mutant(rule: &str, name: &str) -> Mutant {
        let file = File {
            rule: rule.to_owned(),
            what: "It is broken.".to_owned(),
            file: "source.rs".to_owned(),
            find: "a + b".to_owned(),
            replace: "a - b".to_owned(),
            caught_by: vec![format!("{}_adds", rule.to_lowercase())],
            package: contract(),
            command: Command::Test,
            simulated: false,
        };
        Mutant { name: name.to_owned(), file }
    }

    #[test]
    fn a_file_is_read_with_its_defaults() -> Result<()> {
        let text = "rule = \"D7\"\nwhat = \"A slot is free too early.\"\nfile = \"crates/x.rs\"\nfind = '''\n    \
                    let a = \"b\\n\";\n'''\nreplace = ''\ncaught_by = [\"d7_dropping\"]\n";
        let file = read(text)?;
        assert_eq!(file.find, "    let a = \"b\\n\";\n");
        assert_eq!((file.package.as_str(), file.command), ("doorbell-contract", Command::Test));
        let file = read(&format!("{text}package = \"doorbell\"\ncommand = \"loom\"\n"))?;
        assert_eq!((file.package.as_str(), file.command), ("doorbell", Command::Loom));
        Ok(())
    }

    #[test]
    fn a_wrong_file_is_one_clear_line() {
        let error = read("rule = \"D7\"\nfilee = \"x\"\n").expect_err("it is wrong");
        assert!(error.to_string().contains("unknown field `filee`"), "{error}");
        assert!(!error.to_string().contains('\n'));
        assert!(read("rule = D7").is_err());
    }

    #[test]
    fn the_text_must_stand_there_once() -> Result<()> {
        let mutant = mutant("D1", "d1-adds");
        assert_eq!(mutant.applied("let c = a + b;")?, "let c = a - b;");
        let error = mutant.applied("a + b + a + b").expect_err("it stands there twice");
        assert_eq!(error.to_string(), "its text stands 2 times in source.rs");
        assert!(mutant.applied("nothing").is_err());
        Ok(())
    }

    #[test]
    fn a_rules_number_selects_that_rule_alone() {
        let all = || vec![mutant("D1", "d1-adds"), mutant("D10", "d10-adds"), mutant("D2", "d2-more")];
        let names = |filter| matching(all(), filter).into_iter().map(|mutant| mutant.name).collect::<Vec<_>>();
        assert_eq!(names(Some("d1")), ["d1-adds"]);
        assert_eq!(names(Some("adds")), ["d1-adds", "d10-adds"]);
        assert_eq!(names(None).len(), 3);
        assert!(names(Some("q9")).is_empty());
    }

    #[test]
    fn problems_are_seen_without_a_run() -> Result<()> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("source.rs"), "a + b")?;
        let (rules, tests) = (["D1".to_owned()], ["d1_adds_up".to_owned()]);
        let problems = |mutant: &Mutant| mutant.problems(folder.path(), &rules, &tests);
        assert!(problems(&mutant("D1", "d1-adds")).is_empty());
        assert_eq!(problems(&mutant("D1", "d2-adds")), ["mutant d2-adds: its file's name does not begin with d1-"]);
        let mut many = mutant("X1", "x1-adds");
        many.file.replace = many.file.find.clone();
        many.file.file = "gone.rs".to_owned();
        assert_eq!(problems(&many).len(), 4, "{:?}", problems(&many));
        Ok(())
    }
}
