//! Which records a tool looks at: of which topics, of whom, and meant by which expression.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    str,
};

use clap::Args;
use rdkafka::{
    Message as _,
    message::{Headers, OwnedMessage},
};

use super::{
    Failure,
    args::{SourceArgs, usage},
    facts::Facts,
};
use crate::{
    config::Settings,
    domain::{ContentType, Expression, TenantId},
};

#[derive(Args, Clone, Debug, Default)]
pub(super) struct RecordArgs {
    #[command(flatten)]
    pub(super) sources: SourceArgs,
    /// Only records that this means, such as 'operation = FileAccessed and user ~ "*@contoso.example"'.
    ///
    /// Fields: content_type, record_type, operation, workload, user. Comparisons: =, !=, ~, !~ (a pattern with * and ?), in (…),
    /// not in (…). They are joined by and, or, not and parentheses. A comparison with a field that a record lacks does not hold.
    #[arg(long = "where", value_name = "EXPRESSION", value_parser = expression)]
    meant: Option<Expression>,
}

fn expression(text: &str) -> Result<Expression, String> {
    Expression::parse(text).map_err(|fault| fault.to_string())
}

impl RecordArgs {
    /// Whether `--where` means the record.
    pub(super) fn mean(&self, facts: &Facts<'_>, kind: Option<ContentType>) -> bool {
        self.meant.as_ref().is_none_or(|meant| meant.matches(&facts.subject(kind)))
    }

    /// The topics that hold what was asked for.
    ///
    /// # Errors
    /// When tenants or types share a topic in which they cannot be told apart.
    pub(super) fn topics(&self, settings: &Settings) -> Result<Topics, Failure> {
        let kafka = &settings.kafka;
        let has = |hole: &str| kafka.topic_template.contains(hole);
        if self.sources.types().is_some() && !has("{content_type}") {
            let template = &kafka.topic_template;
            return Err(usage(format!(
                "kafka.topic_template `{template}` puts all content types into one topic, so --type cannot tell them apart; use --where"
            )));
        }
        let shared = self.sources.name_tenants() && !has("{tenant}");
        if shared && !kafka.headers.tenant_id && settings.tenants.len() > 1 {
            return Err(usage(
                "tenants share a topic and kafka.headers.tenant_id is off, so --tenant cannot tell them apart"
                    .to_owned(),
            ));
        }
        let sources = self.sources.of(settings)?;
        let kind_of = |kind: ContentType| has("{content_type}").then_some(kind);
        let topics = sources.iter().flat_map(|(tenant, kinds)| {
            kinds.iter().map(|kind| (kafka.output_topic(tenant.id, *kind), kind_of(*kind)))
        });
        let routes = &settings.filter.routes;
        if self.sources.types().is_some() && !routes.is_empty() {
            let why = "left out: what filter.route sends elsewhere, because nothing tells its content type there";
            let _ = writeln!(io::stderr(), "{why}");
        }
        let routes = routes.iter().filter(|_| self.sources.types().is_none());
        let topics = topics.chain(routes.map(|route| (route.topic.clone(), None)));
        let shared = shared || (self.sources.name_tenants() && !settings.filter.routes.is_empty());
        let tenants = shared.then(|| sources.iter().map(|(tenant, _)| tenant.id).collect());
        Ok(Topics { kinds: topics.collect(), tenants })
    }
}

/// Topics of records.
pub(super) struct Topics {
    /// The content type of each topic's records; `None` when there are several.
    kinds: BTreeMap<String, Option<ContentType>>,
    /// Only these tenants of the topics; `None` for all.
    tenants: Option<Vec<TenantId>>,
}

impl Topics {
    pub(super) fn names(&self) -> Vec<String> {
        self.kinds.keys().cloned().collect()
    }

    pub(super) fn kind(&self, message: &OwnedMessage) -> Option<ContentType> {
        self.kinds.get(message.topic()).copied().flatten()
    }

    /// Whether it is a record of a tenant that was asked for.
    pub(super) fn hold(&self, message: &OwnedMessage) -> bool {
        let Some(tenants) = &self.tenants else { return true };
        let Some(id) = header(message, "tenant_id") else { return true };
        tenants.iter().any(|tenant| tenant.to_string() == id)
    }
}

/// A header's text.
pub(super) fn header<'a>(message: &'a OwnedMessage, name: &str) -> Option<&'a str> {
    let found = message.headers()?.iter().find(|header| header.key == name)?;
    str::from_utf8(found.value?).ok()
}

#[cfg(test)]
mod tests {
    use rdkafka::{Timestamp, message::Header};
    use uuid::Uuid;

    use super::*;
    use crate::cli::tests::Parsed;

    #[test]
    fn topics_are_those_of_the_tenants_and_types() {
        let settings = settings("{prefix}.{tenant}.{content_type}");
        let topics = asked(&["--tenant", "b", "--type", "dlp.all"]).topics(&settings).unwrap();
        assert_eq!(topics.names(), ["o365.00000000-0000-0000-0000-000000000002.dlp.all"]);
        assert_eq!(asked(&[]).topics(&settings).unwrap().names().len(), 4, "two tenants of two types");
    }

    #[test]
    fn tenants_of_one_topic_are_told_apart_by_their_header_or_not_at_all() {
        let mut settings = settings("{prefix}.{content_type}");
        let topics = asked(&["--tenant", "b"]).topics(&settings).unwrap();
        let of = |id| message(&topics.names()[0], Uuid::from_u128(id).to_string());
        assert_eq!((topics.hold(&of(1)), topics.hold(&of(2))), (false, true));
        assert!(asked(&[]).topics(&settings).unwrap().hold(&of(7)));
        settings.kafka.headers.tenant_id = false;
        let refused = asked(&["--tenant", "b"]).topics(&settings).err().unwrap();
        assert!(refused.to_string().contains("kafka.headers.tenant_id"));
    }

    #[test]
    fn types_of_one_topic_are_not_told_apart() {
        let settings = settings("all");
        let topics = asked(&[]).topics(&settings).unwrap();
        assert_eq!((topics.names(), topics.kind(&message("all", String::new()))), (vec!["all".to_owned()], None));
        assert!(asked(&["--type", "DLP.All"]).topics(&settings).err().unwrap().to_string().contains("--where"));
    }

    #[test]
    fn an_expression_that_is_none_is_refused_with_its_place() {
        assert!(expression("operation = ").unwrap_err().contains("operation"));
        let facts = Facts::of(br#"{"Operation":"Send"}"#);
        assert!(asked(&["--where", "operation = send"]).mean(&facts, None));
        assert!(!asked(&["--where", "user != nobody"]).mean(&facts, None));
    }

    fn asked(args: &[&str]) -> RecordArgs {
        Parsed::<RecordArgs>::of(args)
    }

    fn settings(template: &str) -> Settings {
        let tenants = [1, 2].map(|id| crate::cli::tests::tenant(id, &[ContentType::Exchange, ContentType::Dlp]));
        let mut settings = Settings::with_defaults(tenants.into(), "host");
        settings.kafka.topic_template = template.to_owned();
        settings
    }

    fn message(topic: &str, tenant: String) -> OwnedMessage {
        let headers = rdkafka::message::OwnedHeaders::new().insert(Header { key: "tenant_id", value: Some(&tenant) });
        OwnedMessage::new(None, None, topic.to_owned(), Timestamp::NotAvailable, 0, 0, Some(headers))
    }
}
