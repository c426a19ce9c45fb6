//! Reads names from Prometheus' text format and from its query language, to compare queries with what a server exports.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of each name of a sample.
pub type Exported = BTreeMap<String, BTreeSet<String>>;

/// The names and labels in a text of `/metrics`.
pub fn exported(text: &str) -> Exported {
    let mut found = Exported::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let tokens = tokens(line);
        let labels = found.entry(tokens[0].clone()).or_default();
        labels.extend(tokens.windows(2).filter(|pair| pair[1] == "=").map(|pair| pair[0].clone()));
    }
    found
}

/// The names in a query.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Each metric with the labels of its matchers.
    pub metrics: Vec<(String, BTreeSet<String>)>,
    /// The labels of `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`.
    pub grouped: BTreeSet<String>,
}

impl Query {
    pub fn read(text: &str) -> Query {
        const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
        const WORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
        let tokens = tokens(text);
        let (mut query, mut at) = (Query::default(), 0);
        let is_name = |token: &str| token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
        // The names until the closing bracket.
        let until = |at: &mut usize, close: &str| {
            let names: Vec<String> = tokens[*at..].iter().take_while(|token| *token != close).cloned().collect();
            *at += names.len() + 1;
            names
        };
        while at < tokens.len() {
            let (token, next) = (tokens[at].as_str(), tokens.get(at + 1).map(String::as_str));
            at += 1;
            match next {
                _ if token == "[" => drop(until(&mut at, "]")),
                Some("(") if GROUPING.contains(&token) => {
                    at += 1;
                    query.grouped.extend(until(&mut at, ")").into_iter().filter(|token| is_name(token)));
                }
                _ if !is_name(token) || WORDS.contains(&token) => {}
                // A function or an aggregation.
                Some("(") => {}
                Some(word) if GROUPING.contains(&word) => {
                    // An aggregation before its labels; otherwise a metric before `on` or `ignoring`.
                    if ["on", "ignoring"].contains(&word) {
                        query.metrics.push((token.to_owned(), BTreeSet::new()));
                    }
                }
                Some("{") => {
                    at += 1;
                    let matchers = until(&mut at, "}");
                    let is_label = |pair: &&[String]| is_name(&pair[0]) && pair[1].starts_with(['=', '!']);
                    let labels = matchers.windows(2).filter(is_label).map(|pair| pair[0].clone());
                    query.metrics.push((token.to_owned(), labels.collect()));
                }
                _ => query.metrics.push((token.to_owned(), BTreeSet::new())),
            }
        }
        query
    }

    /// The names in this query that no server exports. Prometheus itself adds the labels `job` and `instance`.
    pub fn unknown(&self, exported: &Exported) -> Vec<String> {
        let target = ["job", "instance"];
        let is_target = |label: &&String| target.contains(&label.as_str());
        let (mut unknown, mut all) = (Vec::new(), BTreeSet::new());
        for (metric, labels) in &self.metrics {
            match exported.get(metric) {
                None => unknown.push(metric.clone()),
                Some(known) => {
                    let missing = labels.iter().filter(|label| !is_target(label) && !known.contains(*label));
                    unknown.extend(missing.map(|label| format!("{metric}{{{label}}}")));
                    all.extend(known);
                }
            }
        }
        unknown.extend(self.grouped.iter().filter(|label| !is_target(label) && !all.contains(label)).cloned());
        if self.metrics.is_empty() {
            unknown.push("a query without a metric".to_owned());
        }
        unknown
    }
}

/// Names, numbers, texts in quotation marks, comparisons, and other characters one by one.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.');
        let length = match first {
            '"' | '\'' => {
                let mut escaped = false;
                let end = rest[1..].find(|c: char| {
                    let ends = c == first && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                end.expect("a text in quotation marks ends") + 2
            }
            '=' | '!' | '<' | '>' => rest.find(|c| !matches!(c, '=' | '!' | '<' | '>' | '~')).unwrap_or(rest.len()),
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        found.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    found
}

#[test]
fn a_query_is_read_with_its_metrics_and_labels() {
    let text = r#"sum by (le, route) (rate(a_bucket{status=~"5..", route!="/x{y}"}[5m])) / on (job) group_left (role) b
        > 14.4 * 0.001 and max(c offset 5m) or vector(0) unless d"#;
    let query = Query::read(text);
    let names: Vec<&str> = query.metrics.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a_bucket", "b", "c", "d"]);
    assert_eq!(query.metrics[0].1, ["route", "status"].map(str::to_owned).into());
    assert_eq!(query.grouped, ["job", "le", "role", "route"].map(str::to_owned).into());
    assert_eq!(Query::read("a * on (job) b").metrics.len(), 2);

    let exported =
        exported("# HELP a_bucket x\na_bucket{status=\"a=\\\"1\",le=\"1\"} 0\nb{role=\"all\"} 1\nc 2\nd 3\n");
    assert_eq!(query.unknown(&exported), ["a_bucket{route}", "route"]);
    assert_eq!(Query::read("sum(rate(e[5m]))").unknown(&exported), ["e"]);
    assert_eq!(Query::read("sum by (nothing) (c)").unknown(&exported), ["nothing"]);
}
