//! The settings as documents: the example file and the table, both printed from the keys.

use std::fmt::Write;

use super::{
    keys::{GROUPS, KEYS, Key, Otherwise},
    kind::Kind,
};

const HEAD: &str = "\
# Settings of o365feed. Every key is here, with its default where it has one; what is commented out may be left out.
# Durations and sizes carry their unit: 500ms, 90s, 1h, 7d; 64KiB, 128MiB.
# Each key is also an environment variable, which wins over the file: O365FEED_KAFKA__BOOTSTRAP_SERVERS=broker:9092,
# O365FEED_TENANTS__0__NAME=contoso, O365FEED_KAFKA__PROPERTIES__SASL_PASSWORD=...
";

/// A commented YAML file with every key and its default. It is valid as it stands, for one made-up tenant.
#[must_use]
pub fn example() -> String {
    let mut text = HEAD.to_owned();
    let mut open = String::new();
    for key in shown() {
        let group = key.path.rsplit_once('.').map_or("", |(group, _)| group);
        let starts_tenant = key.path == "tenants[].id";
        for (path, doc) in GROUPS.iter().filter(|(path, _)| within(group, path) && !within(&open, path)) {
            let (indent, name) = (indent(path), last(path));
            let _ = write!(text, "{}{indent}# {doc}\n{indent}{name}:\n", if indent.is_empty() { "\n" } else { "" });
        }
        if group.is_empty() && !open.is_empty() || group.is_empty() && text.len() == HEAD.len() {
            text.push('\n');
        }
        open = group.to_owned();
        let indent = indent(key.path);
        let _ = writeln!(text, "{indent}# {}{}", key.doc, default_note(key));
        let line = line(key);
        let _ = if starts_tenant { writeln!(text, "  - {line}") } else { writeln!(text, "{indent}{line}") };
    }
    text
}

/// The settings as a Markdown table.
#[must_use]
pub fn table() -> String {
    let mut text = "| Key | Value | Default | Meaning |\n|---|---|---|---|\n".to_owned();
    for key in shown() {
        let default = match key.otherwise {
            Otherwise::Default(value) => format!("`{value}`"),
            Otherwise::Follows(words, _) => words.to_owned(),
            Otherwise::Required(_) => "required".to_owned(),
            Otherwise::OneOf(_) => "one of the two".to_owned(),
        };
        let _ = writeln!(text, "| `{}` | {} | {default} | {} |", key.path, key.kind.describe(), key.doc);
    }
    text
}

fn shown() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| !matches!(key.kind, Kind::Later))
}

fn line(key: &Key) -> String {
    let name = last(key.path);
    match (key.kind, key.otherwise) {
        (Kind::Properties | Kind::Routes, Otherwise::Follows(_, sample)) => format!("{name}: {{}} # {{ {sample} }}"),
        (_, Otherwise::Follows(_, value)) => format!("# {name}: {}", scalar(key.kind, value)),
        (_, Otherwise::Default(value) | Otherwise::Required(value) | Otherwise::OneOf(value)) => {
            format!("{name}: {}", scalar(key.kind, value))
        }
    }
}

fn default_note(key: &Key) -> String {
    match key.otherwise {
        Otherwise::Follows(words, _) if words != "none" => format!(" Default: {words}."),
        _ => String::new(),
    }
}

fn scalar(kind: Kind, value: &str) -> String {
    match kind {
        Kind::ContentTypes => format!("[{value}]"),
        _ if value.starts_with(['{', '[', '*', '&', '!', '%', '@', '#']) => format!("\"{value}\""),
        _ => value.to_owned(),
    }
}

/// Whether `group` is `path` or stands below it.
fn within(group: &str, path: &str) -> bool {
    group.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Two spaces a level; the list of tenants is a level of its own.
fn indent(path: &str) -> String {
    "  ".repeat(path.matches(['.', '[']).count())
}
