use proptest::prelude::*;

use super::{glob::Piece, *};

fn record<'a>() -> Subject<'a> {
    Subject {
        content_type: Some("Audit.SharePoint"),
        record_type: Some("6"),
        operation: Some("FileAccessed"),
        workload: Some("OneDrive"),
        user: Some("Ada@Contoso.example"),
    }
}

fn truth(text: &str, subject: &Subject<'_>) -> Option<bool> {
    Expression::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}")).truth(subject)
}

#[test]
fn comparisons_say_what_they_mean() {
    for (text, expected) in [
        ("operation = FileAccessed", true),
        ("operation = \"FileAccessed\"", true),
        ("operation = 'FileAccessed'", true),
        ("operation != FileAccessed", false),
        ("operation=fileaccessed", true),
        ("OPERATION = FILEACCESSED", true),
        ("operation in (FilePreviewed, \"Page Viewed\", FileAccessed)", true),
        ("operation not in (FilePreviewed, FileAccessed)", false),
        ("operation IN (FilePreviewed)", false),
        ("record_type = 6", true),
        ("record_type != 15", true),
        ("record_type = 66", false),
        ("content_type = audit.sharepoint", true),
        ("content_type = DLP.All", false),
        ("user ~ *@contoso.example", true),
        ("user ~ \"*@CONTOSO.example\"", true),
        ("user !~ *@fabrikam.example", true),
        ("user ~ a?a@*", true),
        ("user ~ ?da", false),
        ("workload = OneDrive and operation = FileAccessed", true),
        ("workload = SharePoint or operation = FileAccessed", true),
        ("not workload = SharePoint", true),
        ("not not workload = OneDrive", true),
        // `not` binds most, `or` least.
        ("not workload = OneDrive or operation = FileAccessed", true),
        ("not (workload = OneDrive or operation = FileAccessed)", false),
        ("operation = FileAccessed or operation = x and workload = x", true),
        ("(operation = FileAccessed or operation = x) and workload = x", false),
        ("operation = FileAccessed\n  and\tworkload = OneDrive\n", true),
    ] {
        assert_eq!(truth(text, &record()), Some(expected), "{text}");
    }
}

#[test]
fn a_field_that_the_record_lacks_is_unknown_and_matches_nothing() {
    let nobody = Subject { user: None, ..record() };
    for (text, expected) in [
        ("user = ada", None),
        ("user != ada", None),
        ("user ~ *", None),
        ("user !~ *", None),
        ("user in (ada)", None),
        ("user not in (ada)", None),
        ("not user = ada", None),
        ("user = ada or operation = FileAccessed", Some(true)),
        ("user = ada or operation = x", None),
        ("user = ada and operation = FileAccessed", None),
        ("user = ada and operation = x", Some(false)),
        ("not (user = ada and operation = x)", Some(true)),
    ] {
        assert_eq!(truth(text, &nobody), expected, "{text}");
        assert_eq!(Expression::parse(text).unwrap().matches(&nobody), expected == Some(true), "{text}");
    }
    let empty = Subject { user: Some(""), ..record() };
    assert_eq!(truth("user = ''", &empty), Some(true));
    assert_eq!(truth("user ~ *", &empty), Some(true));
}

#[test]
fn a_text_in_quotes_may_hold_everything() {
    let is = |user: &str, text: &str| truth(text, &Subject { user: Some(user), ..record() }) == Some(true);
    assert!(is(r#"a "b" c"#, r#"user = "a \"b\" c""#));
    assert!(is(r#"a "b" c"#, r#"user = 'a "b" c'"#));
    assert!(is(r"CONTOSO\ada", r#"user = "contoso\\ada""#));
    assert!(is("a*b", r#"user = "a\*b""#) && !is("axb", r#"user = "a\*b""#));
    assert!(is("a*b?", r#"user ~ "?\**\?""#) && !is("axbx", r#"user ~ "?\**\?""#));
    assert!(is("and", "user = 'and'"));
    assert!(is("i:0h.f|membership|1003@live.com", "user = 'i:0h.f|membership|1003@live.com'"));
    assert!(is("ÄRGER@contoso.example", "user = ärger@contoso.example"));
}

/// What people read when they have written something else.
#[test]
fn a_fault_says_where_what_and_what_else() {
    let faults: Vec<String> = [
        "",
        "operation",
        "operation FileAccessed",
        "operation == FileAccessed",
        "op = FileAccessed",
        "\"operation\" = FileAccessed",
        "operation = ",
        "operation = File*",
        "operation = and",
        "operation = Page Viewed",
        "operation = \"Page Viewed",
        "operation = \"contoso\\ada\"",
        "operation in FileAccessed",
        "operation in ()",
        "operation in (a b)",
        "operation not = a",
        "operation = a && user = b",
        "(operation = a",
        "operation = a)",
        "record_type = SharePoint",
        "content_type = Exchange",
        "user ~ ( ",
        "user\u{1b}[31m = a",
        "user = abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz abc",
        "user = a abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
        "user < b",
        "user = a\n  and usr = b",
    ]
    .into_iter()
    .map(|text| match Expression::parse(text) {
        Ok(read) => format!("{text}\n    IS {read}"),
        Err(fault) => format!("{}\n    {fault}", text.escape_debug()),
    })
    .collect();
    insta::assert_snapshot!(faults.join("\n"));
}

#[test]
fn nesting_has_an_end() {
    let nested = |times: usize, open: &str, close: &str| {
        Expression::parse(&format!("{}user = a{}", open.repeat(times), close.repeat(times)))
    };
    for (open, close, levels) in [("(", ")", 1), ("not ", "", 1), ("not (", ")", 2)] {
        let most = Expression::MAX_DEPTH / levels;
        assert!(nested(most, open, close).is_ok());
        assert!(nested(most + 1, open, close).unwrap_err().expected.contains("levels"));
        assert!(nested(1_000_000, open, close).is_err());
    }
    // Many on one level are no nesting.
    assert!(Expression::parse(&format!("user = a{}", " or user = b".repeat(10_000))).is_ok());
}

fn field() -> impl Strategy<Value = Field> {
    prop::sample::select(Field::ALL.to_vec())
}

fn compare() -> impl Strategy<Value = Node> {
    let text = "[ -~äÖßİ\u{1f600}\n]{0,6}";
    let values = move |field| match field {
        Field::ContentType => prop::collection::vec(
            prop::sample::select(crate::domain::ContentType::ALL.to_vec()).prop_map(|kind| kind.to_string()),
            1..3,
        )
        .boxed(),
        Field::RecordType => prop::collection::vec("-?[0-9]{1,4}", 1..3).boxed(),
        _ => prop::collection::vec(text, 1..4).boxed(),
    };
    let piece = prop_oneof![Just(Piece::Any), Just(Piece::One), any::<char>().prop_map(Piece::Literal)];
    let like = (field(), any::<bool>(), prop::collection::vec(piece, 0..5)).prop_map(|(field, is_negated, pieces)| {
        Node::Compare { field, is_negated, test: Test::Like(Glob::new(pieces)) }
    });
    let one_of = (field(), any::<bool>()).prop_flat_map(move |(field, is_negated)| {
        values(field).prop_map(move |values| Node::Compare { field, is_negated, test: Test::OneOf(values) })
    });
    prop_oneof![one_of, like]
}

fn node() -> impl Strategy<Value = Node> {
    compare().prop_recursive(6, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Node::Any),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Node::All),
            inner.prop_map(|node| Node::Not(Box::new(node))),
        ]
    })
}

/// Texts that look like expressions, right and wrong.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "operation",
        "user",
        "record_type",
        "content_type",
        "and",
        "or",
        "not",
        "in",
        "=",
        "!=",
        "~",
        "!~",
        "(",
        ")",
        ",",
        "a",
        "15",
        "DLP.All",
        "\"x y\"",
        "'",
        "\"",
        "\\",
        "*",
        "!",
        " ",
        "\u{1f600}",
    ]);
    prop::collection::vec(word, 0..12).prop_map(|words| words.join(" "))
}

fn subject() -> impl Strategy<Value = [Option<String>; 5]> {
    let text = || prop::option::of(prop::sample::select(vec!["", "a", "b", "6", "DLP.All"]).prop_map(str::to_owned));
    [text(), text(), text(), text(), text()]
}

fn with(texts: &[Option<String>; 5]) -> Subject<'_> {
    let [content_type, record_type, operation, workload, user] = texts.each_ref().map(Option::as_deref);
    Subject { content_type, record_type, operation, workload, user }
}

/// What a pattern means, said in the simplest way.
fn is_like(pieces: &[Piece], text: &[char]) -> bool {
    match (pieces, text) {
        ([], text) => text.is_empty(),
        ([Piece::Any, rest @ ..], text) => (0..=text.len()).any(|taken| is_like(rest, &text[taken..])),
        ([Piece::One, rest @ ..], [_, text @ ..]) => is_like(rest, text),
        ([Piece::Literal(wanted), rest @ ..], [letter, text @ ..]) => wanted == letter && is_like(rest, text),
        (_, []) => false,
    }
}

proptest! {
    #[test]
    fn any_text_is_an_expression_or_a_fault_within_it(text in prop_oneof![".{0,60}", words()]) {
        match Expression::parse(&text) {
            Ok(expression) => prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression)),
            Err(fault) => {
                prop_assert!((1..=text.chars().count() + 1).contains(&fault.column), "{}", fault);
                prop_assert!(!fault.to_string().contains(char::is_control), "{:?}", fault);
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again(node in node()) {
        let expression = Expression(node);
        prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
    }

    #[test]
    fn truth_obeys_kleenes_laws(a in node(), b in node(), c in node(), texts in subject()) {
        let subject = with(&texts);
        let truth = |node: Node| node.truth(&subject);
        let not = |node: &Node| Node::Not(Box::new(node.clone()));
        let and = |a: &Node, b: &Node| Node::All(vec![a.clone(), b.clone()]);
        let or = |a: &Node, b: &Node| Node::Any(vec![a.clone(), b.clone()]);
        prop_assert_eq!(truth(not(&not(&a))), truth(a.clone()));
        prop_assert_eq!(truth(not(&and(&a, &b))), truth(or(&not(&a), &not(&b))));
        prop_assert_eq!(truth(not(&or(&a, &b))), truth(and(&not(&a), &not(&b))));
        prop_assert_eq!(truth(and(&a, &b)), truth(and(&b, &a)));
        prop_assert_eq!(truth(or(&a, &b)), truth(or(&b, &a)));
        prop_assert_eq!(truth(and(&a, &or(&b, &c))), truth(or(&and(&a, &b), &and(&a, &c))));
        prop_assert_eq!(truth(or(&a, &and(&a, &b))), truth(a.clone()));
        // Both at once are never true, and never false when neither is known.
        prop_assert_ne!(truth(and(&a, &not(&a))), Some(true));
        prop_assert_ne!(truth(or(&a, &not(&a))), Some(false));
    }

    #[test]
    fn knowing_more_never_takes_back_what_was_certain(node in node(), texts in subject(), hidden in 0_usize..5) {
        let mut fewer = texts.clone();
        fewer[hidden] = None;
        if let Some(certain) = node.truth(&with(&fewer)) {
            prop_assert_eq!(node.truth(&with(&texts)), Some(certain));
        }
    }

    #[test]
    fn a_pattern_means_what_its_definition_says(
        pieces in prop::collection::vec(
            prop_oneof![Just(Piece::Any), Just(Piece::One), prop::sample::select(vec!['a', 'b']).prop_map(Piece::Literal)],
            0..8,
        ),
        text in "[ab]{0,10}",
    ) {
        let letters: Vec<char> = text.chars().collect();
        prop_assert_eq!(Glob::new(pieces.clone()).matches(&text), is_like(&pieces, &letters));
    }
}
