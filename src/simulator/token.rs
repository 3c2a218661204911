//! The token that each text of a trial carries (`#k7f3q`), so that an answer which quotes it tells
//! which message it answers, whoever worded it.

use std::collections::HashSet;

use super::seed::Draw;

/// Without vowels, 0, 1, l and y: no token is a word, none is misread.
const ALPHABET: &[u8] = b"bcdfghjkmnpqrstvwxz23456789";
const LENGTH: usize = 5;
/// Far fewer than there are, so that drawing another one soon finds a new one.
pub const TOKENS_MAX: usize = 1_000_000;

/// So many tokens, at most [`TOKENS_MAX`]; no two are equal.
pub fn draw(count: usize, draw: &mut Draw) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut tokens = Vec::new();
    while tokens.len() < count.min(TOKENS_MAX) {
        let mut token = String::from("#");
        for _ in 0..LENGTH {
            token.push(char::from(*draw.pick(ALPHABET)));
        }
        if seen.insert(token.clone()) {
            tokens.push(token);
        }
    }
    tokens
}

/// The tokens in a text, in lower case, each once, in order. A bot may shout what it quotes.
pub fn find(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (at, _) in text.match_indices('#') {
        let rest = &text[at + 1..];
        let is_part = |c: char| c.is_ascii_alphanumeric();
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let token = text[at..at + 1 + length].to_ascii_lowercase();
        if length == LENGTH && !found.contains(&token) {
            found.push(token);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_distinct_and_found_again() {
        let tokens = draw(2000, &mut Draw::new(3));
        assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), 2000);
        for token in &tokens {
            let text = format!("¿{token}? {}, (#12345678) #", token.to_uppercase());
            assert_eq!(find(&text), std::slice::from_ref(token), "{text}");
        }
        assert_eq!(tokens, draw(2000, &mut Draw::new(3)));
    }

    #[test]
    fn what_only_looks_alike_is_none() {
        for text in ["", "#", "#abc", "#abcdefg", "abcde", "# bcdfg"] {
            assert!(find(text).is_empty(), "{text}");
        }
        assert_eq!(find("#bcdfg#hjkmn"), ["#bcdfg", "#hjkmn"]);
    }
}
