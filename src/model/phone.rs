//! Phone numbers of countries where one subscriber has two ways of being dialled.

/// The other way to write a number that WhatsApp may know only in one: with or without the `1` of
/// Mexico's mobiles, the `9` of Argentina's, the ninth digit of Brazil's. `None` elsewhere.
///
/// Source: Meta, *Phone numbers*: `wa_id` may differ from the number that was dialled.
pub fn twin(digits: &str) -> Option<String> {
    let national = |country: &str, length: usize| {
        let rest = digits.strip_prefix(country)?;
        (rest.len() == length).then_some(rest)
    };
    if let Some(rest) = national("521", 10) {
        return Some(format!("52{rest}"));
    }
    if let Some(rest) = national("52", 10) {
        return Some(format!("521{rest}"));
    }
    if let Some(rest) = national("549", 10) {
        return Some(format!("54{rest}"));
    }
    if let Some(rest) = national("54", 10) {
        return Some(format!("549{rest}"));
    }
    let brazil = digits.strip_prefix("55")?;
    let (area, subscriber) = brazil.split_at_checked(2)?;
    match (subscriber.len(), subscriber.strip_prefix('9')) {
        (9, Some(rest)) => Some(format!("55{area}{rest}")),
        (8, _) => Some(format!("55{area}9{subscriber}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_twin_are_each_others() {
        for (one, other) in [
            ("5215512345678", "525512345678"),
            ("5491123456789", "541123456789"),
            ("5511987654321", "551187654321"),
        ] {
            assert_eq!(twin(one).as_deref(), Some(other));
            assert_eq!(twin(other).as_deref(), Some(one));
        }
    }

    #[test]
    fn elsewhere_a_number_is_one_number() {
        for alone in [
            "",
            "55",
            "4915112345678",
            "15551230001",
            "5512",
            "521",
            "55ä1",
        ] {
            assert_eq!(twin(alone), None, "{alone}");
        }
    }
}
