//! Licence expressions: `MIT OR Apache-2.0`, `(MIT OR Apache-2.0) AND Unicode-3.0`, `Apache-2.0 WITH LLVM-exception`.

/// Whether an expression can be met with allowed licences alone; `None` if it is not understood. `/`, as old manifests
/// have it, is `OR`. A licence with an exception is allowed as such, or where it is allowed without.
pub(crate) fn permits(expression: &str, allowed: &[String]) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = Words { words: spaced.split_whitespace().collect(), next: 0, allowed };
    let permitted = words.any()?;
    (words.next == words.words.len()).then_some(permitted)
}

struct Words<'a> {
    words: Vec<&'a str>,
    next: usize,
    allowed: &'a [String],
}

impl<'a> Words<'a> {
    fn any(&mut self) -> Option<bool> {
        let mut permitted = self.all()?;
        while self.take("OR") {
            permitted |= self.all()?;
        }
        Some(permitted)
    }

    fn all(&mut self) -> Option<bool> {
        let mut permitted = self.one()?;
        while self.take("AND") {
            permitted &= self.one()?;
        }
        Some(permitted)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let permitted = self.any()?;
            return self.take(")").then_some(permitted);
        }
        let licence = self.word()?;
        let mut permitted = self.allows(licence);
        if self.take("WITH") {
            let exception = self.word()?;
            permitted |= self.allows(&format!("{licence} WITH {exception}"));
        }
        Some(permitted)
    }

    fn allows(&self, licence: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed == licence)
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.next) == Some(&word);
        self.next += usize::from(found);
        found
    }

    fn word(&mut self) -> Option<&'a str> {
        let word = *self.words.get(self.next)?;
        self.next += 1;
        (!matches!(word, "(" | ")" | "AND" | "OR" | "WITH")).then_some(word)
    }
}

#[cfg(test)]
mod unit {
    fn permits(expression: &str) -> Option<bool> {
        let allowed = ["MIT", "Apache-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"].map(str::to_owned);
        super::permits(expression, &allowed)
    }

    #[test]
    fn one_of_several_is_enough_and_all_of_several_are_needed() {
        assert_eq!(permits("MIT"), Some(true));
        assert_eq!(permits("GPL-3.0-only"), Some(false));
        assert_eq!(permits("GPL-3.0-only OR MIT"), Some(true));
        assert_eq!(permits("GPL-3.0-only AND MIT"), Some(false));
        assert_eq!(permits("MIT/Apache-2.0"), Some(true));
        assert_eq!(permits("(MIT OR GPL-3.0-only) AND Apache-2.0"), Some(true));
        // AND binds more strongly.
        assert_eq!(permits("MIT OR GPL-3.0-only AND Apache-2.0"), Some(true));
        assert_eq!(permits("(MIT OR GPL-3.0-only) AND Unknown"), Some(false));
    }

    #[test]
    fn exceptions_only_widen() {
        assert_eq!(permits("Apache-2.0 WITH LLVM-exception"), Some(true));
        assert_eq!(permits("GPL-2.0-only WITH Classpath-exception-2.0"), Some(true));
        assert_eq!(permits("GPL-2.0-only"), Some(false));
    }

    #[test]
    fn what_is_not_understood_is_not_permitted() {
        for expression in ["", "OR", "MIT OR", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH", "()"] {
            assert_eq!(permits(expression), None, "{expression}");
        }
    }
}
