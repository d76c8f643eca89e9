//! One text, many scripts: placeholders, each with a list of values, in every combination.

use std::collections::BTreeMap;

/// The values of every placeholder, by name.
pub(crate) type Each = BTreeMap<String, Vec<String>>;

/// Every combination of values, the last name's changing fastest. Without placeholders: one, empty.
pub(crate) fn combinations(each: &Each) -> Vec<Vec<(&str, &str)>> {
    let mut all = vec![Vec::new()];
    for (name, values) in each {
        let longer = all.iter().flat_map(|before: &Vec<(&str, &str)>| {
            values.iter().map(move |value| {
                let mut chosen = before.clone();
                chosen.push((name.as_str(), value.as_str()));
                chosen
            })
        });
        all = longer.collect();
    }
    all
}

/// The text with `{name}` replaced by the value.
pub(crate) fn fill(text: &str, chosen: &[(&str, &str)]) -> String {
    chosen.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_comes_once() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let each = Each::from([("a".to_owned(), list(&["1", "2"])), ("b".to_owned(), list(&["x", "y"]))]);
        let texts: Vec<String> = combinations(&each).iter().map(|it| fill("{a}{b}{c}", it)).collect();
        assert_eq!(texts, ["1x{c}", "1y{c}", "2x{c}", "2y{c}"]);
        assert_eq!(combinations(&Each::new()).len(), 1);
    }
}
