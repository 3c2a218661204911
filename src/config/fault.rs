//! What is wrong with the settings: every fault at once, each with its mend.
//!
//! A fault never shows a secret, nor the line of a file that may hold one.

use std::fmt;

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key as it stands in the file, for example `turn.deadline`, or what else is at fault:
    /// the path of a file, or the unknown key.
    pub key: String,
    /// The name of the same setting in the environment, where there is one.
    pub environment: Option<&'static str>,
    /// What would have been right.
    pub expected: String,
    /// What stood there, and where; a secret shows as `***`.
    pub found: String,
    /// What to do about it.
    pub mend: String,
}

/// Everything that is wrong with the settings; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub(super) Vec<Fault>);

impl Faults {
    /// Each fault, in the order in which the keys are documented.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(name) = self.environment {
            write!(f, " ({name})")?;
        }
        write!(f, "\n    found:    {}", self.found)?;
        write!(f, "\n    expected: {}", self.expected)?;
        write!(f, "\n    mend:     {}", self.mend)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("1 fault in the settings:")?,
            count => write!(f, "{count} faults in the settings:")?,
        }
        for fault in &self.0 {
            write!(f, "\n\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_print_as_one_block() {
        let fault = Fault {
            key: "turn.deadline".into(),
            environment: Some("HAPAX_TURN_DEADLINE"),
            expected: "a duration".into(),
            found: "\"60\" in hapax.toml".into(),
            mend: "add a unit".into(),
        };
        let other = Fault {
            key: "tern".into(),
            environment: None,
            ..fault.clone()
        };
        let text = Faults(vec![fault, other]).to_string();
        assert_eq!(
            text,
            "2 faults in the settings:\n\
             \n  turn.deadline (HAPAX_TURN_DEADLINE)\
             \n    found:    \"60\" in hapax.toml\
             \n    expected: a duration\
             \n    mend:     add a unit\n\
             \n  tern\
             \n    found:    \"60\" in hapax.toml\
             \n    expected: a duration\
             \n    mend:     add a unit"
        );
    }
}
