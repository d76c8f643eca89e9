//! Standard input of `-R`: one command line a line, words between blanks, no quoting.

/// The words of each line that has any. The word `ipvsadm` is dropped wherever it stands.
pub fn restore_lines(input: &str) -> impl Iterator<Item = Vec<String>> {
    input.split('\n').map(words).filter(|words| !words.is_empty())
}

fn words(line: &str) -> Vec<String> {
    line.split([' ', '\t', '\r'])
        .filter(|word| !word.is_empty() && *word != "ipvsadm")
        .map(str::to_owned)
        .collect()
}

/// The input without lines that start with `#`, as `ipvsadm-restore` prepares it.
#[must_use]
pub fn drop_comments(input: &str) -> String {
    input.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_words() {
        let input = "ipvsadm -A\t-t  x\r\n\n  ipvsadm \n-L ipvsadm \"a b\"";
        let lines: Vec<Vec<String>> = restore_lines(input).collect();
        assert_eq!(lines, [vec!["-A", "-t", "x"], vec!["-L", "\"a", "b\""]]);
    }

    #[test]
    fn only_lines_that_start_with_a_hash_are_comments() {
        assert_eq!(drop_comments("# a\n-C\n #b\n#c"), "-C\n #b\n");
    }
}
