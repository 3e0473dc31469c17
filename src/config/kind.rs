//! What a key may hold: how to read it, and how to say what was expected.

use std::{net::SocketAddr, time::Duration};

use jiff::Timestamp;
use url::{Host, Url};
use uuid::Uuid;

use super::{settings::StartFrom, units};
use crate::{
    domain::{self, ContentType},
    telemetry,
};

/// The kind of value that a key holds, with its limits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Guid,
    /// An https (or, where allowed, http) address without path, query or credentials.
    Origin,
    /// Where notifications are sent: https (or, to this machine, http), a path allowed.
    Receiver,
    /// Where spans are sent: https or http, a path allowed.
    Collector,
    File,
    /// The name of an environment variable.
    Variable,
    /// Where to listen.
    Address,
    /// `host:port`, several with commas.
    Brokers,
    /// What Kafka takes as a topic, and as the id of a group's member.
    Name,
    /// A topic name with `{…}` to fill in.
    Template,
    Filter,
    /// Which records are meant.
    Expression,
    /// A group of topics, each with an expression, in their order.
    Routes,
    Start,
    Flag,
    Whole(i64, i64),
    Span(Duration, Duration),
    Size(u64, u64),
    Choice(&'static [&'static str]),
    ContentTypes,
    /// Any property of librdkafka; the keys below it are not ours.
    Properties,
    /// Designed, but not built: refused with a word of its own.
    Later,
}

/// What was read.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Guid(Uuid),
    Origin(Url),
    Address(SocketAddr),
    Start(StartFrom),
    Expression(domain::Expression),
    Flag(bool),
    Whole(i64),
    Span(Duration),
    Size(u64),
    ContentType(ContentType),
}

impl Kind {
    /// Whether several values may be given, as a sequence or with commas.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::ContentTypes | Self::Brokers)
    }

    /// # Errors
    /// What is wrong, to stand behind the key: "`zero` is not a whole number of at least 1".
    pub(super) fn read(self, text: &str) -> Result<Value, String> {
        if let Self::Expression = self {
            let read = domain::Expression::parse(text).map(Value::Expression);
            return read.map_err(|fault| format!("is no expression {fault}"));
        }
        self.parse(text).ok_or_else(|| match self {
            Self::Later => {
                "is not supported yet; use secret_file, secret_env, certificate_file or federated_token_file".to_owned()
            }
            _ if self.may_show(text) => format!("`{text}` is not {}", self.describe()),
            _ => format!("is not {}", self.describe()),
        })
    }

    /// What a value must be, to stand behind "is not": `a duration of at least 1d`.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Text => "plain text".to_owned(),
            Self::Guid => "a GUID such as `7f3c1f6e-5a0b-4d5e-9c7a-0c0a17e50001`".to_owned(),
            Self::Origin => "an address such as `https://manage.office.com`, without path or credentials".to_owned(),
            Self::Receiver => {
                "an https address such as `https://feed.example.com/webhook`, without credentials".to_owned()
            }
            Self::Collector => "an address such as `http://localhost:4318`, without credentials or query".to_owned(),
            Self::File => "the path of a file".to_owned(),
            Self::Variable => "the name of an environment variable (upper case, digits, `_`)".to_owned(),
            Self::Address => "an address with a port such as `127.0.0.1:9365`".to_owned(),
            Self::Brokers => "`host:port`, or several with commas".to_owned(),
            Self::Name => "a name of 1 to 200 letters, digits, `.`, `_` or `-`".to_owned(),
            Self::Template => {
                "a topic name in which `{prefix}`, `{content_type}` and `{tenant}` are filled in".to_owned()
            }
            Self::Filter => "a log filter such as `info` or `o365feed=debug,warn`".to_owned(),
            Self::Expression => r#"an expression such as `operation in (FilePreviewed, "Page Viewed")`"#.to_owned(),
            Self::Routes => "a group of topics, each with an expression".to_owned(),
            Self::Start => "`earliest`, `now` or a time such as `2026-01-31T00:00:00Z`".to_owned(),
            Self::Flag => "`true` or `false`".to_owned(),
            Self::Whole(min, i64::MAX) => format!("a whole number of at least {min}"),
            Self::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Self::Span(min, max) => {
                format!("a duration from {} to {}, with its unit", units::show_span(min), units::show_span(max))
            }
            Self::Size(min, max) => {
                format!("a size from {} to {}, with its unit", units::show_size(min), units::show_size(max))
            }
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::ContentTypes => format!("one of {}", ContentType::ALL.map(ContentType::as_str).join(", ")),
            Self::Properties => "a group of librdkafka properties".to_owned(),
            Self::Later => "supported yet".to_owned(),
        }
    }

    fn parse(self, text: &str) -> Option<Value> {
        let kept = |good: bool| good.then(|| Value::Text(text.to_owned()));
        match self {
            Self::Text | Self::File => kept(!text.is_empty() && !text.contains(char::is_control)),
            Self::Guid => (text.len() == 36).then(|| Uuid::try_parse(text).ok().map(Value::Guid))?,
            Self::Origin => origin(text).map(Value::Origin),
            Self::Receiver => receiver(text).map(Value::Origin),
            Self::Collector => collector(text).map(Value::Origin),
            Self::Variable => kept(is_variable(text)),
            Self::Address => text.parse().ok().map(Value::Address),
            Self::Brokers => kept(is_broker(text)),
            Self::Name => kept(is_name(text)),
            Self::Template => kept(is_template(text)),
            Self::Filter => kept(telemetry::is_filter(text)),
            Self::Start => match text {
                "earliest" => Some(Value::Start(StartFrom::Earliest)),
                "now" => Some(Value::Start(StartFrom::Now)),
                _ => text.parse::<Timestamp>().ok().map(|at| Value::Start(StartFrom::At(at))),
            },
            Self::Flag => text.parse().ok().map(Value::Flag),
            Self::Whole(min, max) => text.parse().ok().filter(|number| (min..=max).contains(number)).map(Value::Whole),
            Self::Span(min, max) => units::span(text).filter(|span| (min..=max).contains(span)).map(Value::Span),
            Self::Size(min, max) => units::size(text).filter(|size| (min..=max).contains(size)).map(Value::Size),
            Self::Choice(words) => kept(words.contains(&text)),
            Self::ContentTypes => text.parse().ok().map(Value::ContentType),
            Self::Expression => domain::Expression::parse(text).ok().map(Value::Expression),
            Self::Properties | Self::Routes | Self::Later => None,
        }
    }

    /// Operators paste secrets into the wrong line. Where one is likely to land, only what cannot be one is repeated.
    fn may_show(self, text: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        match self {
            Self::Text | Self::File | Self::Variable | Self::Properties | Self::Later => false,
            Self::Guid => text.len() <= 36 && text.chars().all(plain),
            Self::Origin | Self::Receiver | Self::Collector | Self::Brokers => !text.contains('@'),
            _ => text.len() <= 100,
        }
    }
}

/// The table fixes the kind of every key, so a reader that asks for another is a mistake that any test run meets.
const TABLE: &str = "the table says which kind this key is";

impl Value {
    pub(super) fn text(self) -> String {
        if let Self::Text(text) = self { text } else { unreachable!("{TABLE}") }
    }

    pub(super) fn guid(self) -> Uuid {
        if let Self::Guid(guid) = self { guid } else { unreachable!("{TABLE}") }
    }

    pub(super) fn origin(self) -> Url {
        if let Self::Origin(url) = self { url } else { unreachable!("{TABLE}") }
    }

    pub(super) fn address(self) -> SocketAddr {
        if let Self::Address(address) = self { address } else { unreachable!("{TABLE}") }
    }

    pub(super) fn start(self) -> StartFrom {
        if let Self::Start(start) = self { start } else { unreachable!("{TABLE}") }
    }

    pub(super) fn expression(self) -> domain::Expression {
        if let Self::Expression(expression) = self { expression } else { unreachable!("{TABLE}") }
    }

    pub(super) fn flag(self) -> bool {
        if let Self::Flag(flag) = self { flag } else { unreachable!("{TABLE}") }
    }

    /// The limits of the key's kind make it fit.
    pub(super) fn whole<N: TryFrom<i64>>(self) -> N {
        let Self::Whole(number) = self else { unreachable!("{TABLE}") };
        N::try_from(number).unwrap_or_else(|_| unreachable!("the table's limits fit the type of the setting"))
    }

    pub(super) fn span(self) -> Duration {
        if let Self::Span(span) = self { span } else { unreachable!("{TABLE}") }
    }

    /// Bytes; on a machine too small for the number, all that it can address.
    pub(super) fn size(self) -> usize {
        if let Self::Size(bytes) = self {
            usize::try_from(bytes).unwrap_or(usize::MAX)
        } else {
            unreachable!("{TABLE}")
        }
    }

    pub(super) fn content_type(self) -> ContentType {
        if let Self::ContentType(kind) = self { kind } else { unreachable!("{TABLE}") }
    }
}

fn origin(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let open = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "https" | "http") && url.host().is_some() && bare && open).then_some(url)
}

/// An address that the service takes for a webhook; plain http only to this machine, to try it out.
pub(crate) fn receiver(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let open = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    (safe && open && url.has_host()).then_some(url)
}

fn collector(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let bare = url.query().is_none() && url.fragment().is_none();
    let open = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "https" | "http") && url.has_host() && bare && open).then_some(url)
}

/// Whether the address is this very machine's.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn is_variable(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

fn is_broker(text: &str) -> bool {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, port),
        _ => (text, "9092"), // librdkafka's own default
    };
    let host_fits = !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || ".-_[]:%".contains(c));
    host_fits && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Kafka allows 249; what is left is room for what we add.
pub(super) fn is_name(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && text.chars().any(|c| c != '.')
}

fn is_template(text: &str) -> bool {
    let filled =
        ["{prefix}", "{content_type}", "{tenant}"].iter().fold(text.to_owned(), |t, hole| t.replace(hole, "x"));
    is_name(&filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_values_are_read_and_bad_ones_refused() {
        let cases: [(Kind, &[&str], &[&str]); 11] = [
            (
                Kind::Guid,
                &["7F3C1F6E-5a0b-4d5e-9c7a-0c0a17e50001"],
                &["", "contoso.com", "7f3c1f6e5a0b4d5e9c7a0c0a17e50001"],
            ),
            (
                Kind::Origin,
                &["https://manage.office.com", "https://login.microsoftonline.com/", "http://127.0.0.1:8365"],
                &["manage.office.com", "ftp://x", "https://a/b", "https://u:p@a", "https://a?b", "https://"],
            ),
            (
                Kind::Receiver,
                &["https://feed.example.com/webhook", "https://a:8443/x?y=1", "http://127.0.0.1:9443/"],
                &["", "http://feed.example.com/", "feed.example.com", "https://u:p@a/", "https://a/#x", "ftp://a/"],
            ),
            (
                Kind::Collector,
                &["http://localhost:4318", "https://otel.example.com/base/", "http://collector.monitoring:4318"],
                &["", "localhost:4318", "grpc://a:4317", "https://u:p@a/", "https://a/?key=1", "https://a/#x"],
            ),
            (Kind::Variable, &["SECRET_1", "_X"], &["", "1X", "abc~8Q", "Secret"]),
            (
                Kind::Brokers,
                &["localhost:9092", "[::1]:9092", "b-1.kafka", "SSL://b:1"],
                &["", ":9092", "b:port", "b:0", "a b:1"],
            ),
            (Kind::Name, &["o365", "a.b_c-d"], &["", ".", "..", "a b", "o365/x", "ä"]),
            (Kind::Template, &["{prefix}.{content_type}", "all"], &["", "{topic}", "{prefix", "{prefix}/x"]),
            (Kind::Start, &["earliest", "now", "2026-01-31T00:00:00Z"], &["", "yesterday", "2026-01-31"]),
            (Kind::Whole(1, 9), &["1", "9"], &["0", "10", "1.0", "0x1", "", "nine"]),
            (Kind::Flag, &["true", "false"], &["yes", "True", "1", ""]),
        ];
        for (kind, good, bad) in cases {
            for text in good {
                assert!(kind.read(text).is_ok(), "{kind:?} {text}");
            }
            for text in bad {
                assert!(kind.read(text).is_err(), "{kind:?} {text}");
            }
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        let secret = "abc8Q~s3cr3t.s3cr3t-s3cr3t_s3cr3t";
        for kind in [Kind::Guid, Kind::Variable, Kind::Later] {
            assert!(!kind.read(secret).unwrap_err().contains("s3cr3t"), "{kind:?}");
        }
        assert!(!Kind::Origin.read("https://user:s3cr3t@host").unwrap_err().contains("s3cr3t"));
        assert!(
            Kind::Guid
                .read("contoso.onmicrosoft.com")
                .unwrap_err()
                .starts_with("`contoso.onmicrosoft.com` is not a GUID")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            for kind in [Kind::Guid, Kind::Origin, Kind::Brokers, Kind::Template, Kind::Start, Kind::Address, Kind::Filter] {
                let _ = kind.read(&text);
            }
        }
    }
}
