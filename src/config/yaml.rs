//! The settings file, with the line of everything in it.

use std::sync::Arc;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use super::{
    fault::{Faults, Place},
    keys,
    kind::Kind,
    written::{Item, Written, refuse_unknown},
};

/// What stands in `text`, the content of `file`. Faults do not end the reading: all are found at once.
pub(super) fn written(file: &str, text: &str, faults: &mut Faults) -> Written {
    let text = text.trim_start_matches('\u{feff}');
    let mut walk = Walk { file: file.into(), chars: text.chars().collect(), faults, found: Written::default() };
    match MarkedYaml::load_from_str(text) {
        Ok(documents) => {
            if let Some(second) = documents.get(1) {
                let place = walk.place(second);
                walk.faults.add(&place, "", "is a second document; settings are one");
            }
            if let Some(first) = documents.first() {
                walk.group("", first);
            }
        }
        Err(unread) => {
            let place = Place::Line(walk.file.clone(), unread.marker().line());
            walk.faults.add(&place, "", format!("could not be read as YAML: {}", unread.info()));
        }
    }
    walk.found
}

struct Walk<'a> {
    file: Arc<str>,
    /// The file's text, because a number must be judged as it was written: YAML reads `010` as 10.
    chars: Vec<char>,
    faults: &'a mut Faults,
    found: Written,
}

/// What a node is to us.
enum Shape<'n, 'i> {
    Empty,
    One(String),
    Many(&'n [MarkedYaml<'i>]),
    Group(&'n saphyr::AnnotatedMapping<'i, MarkedYaml<'i>>),
    Strange,
}

impl Walk<'_> {
    fn group(&mut self, path: &str, node: &MarkedYaml<'_>) {
        let Shape::Group(entries) = self.shape(node) else {
            if !matches!(self.shape(node), Shape::Empty) {
                self.refuse(node, path, "must be a group of keys");
            }
            return;
        };
        for (name, value) in entries {
            let Shape::One(name_text) = self.shape(name) else {
                self.refuse(name, path, "has a key that is no plain text");
                continue;
            };
            let name_text = name_text.escape_debug().to_string();
            let child = if path.is_empty() { name_text } else { format!("{path}.{name_text}") };
            self.entry(&child, name, value);
        }
    }

    fn entry(&mut self, path: &str, name: &MarkedYaml<'_>, value: &MarkedYaml<'_>) {
        match keys::find(path).map(|key| key.kind) {
            Some(Kind::Properties) => self.properties(path, value),
            Some(Kind::Routes) => self.routes(path, value),
            Some(Kind::Later) => self.found.put(path, vec![(String::new(), self.place(name))], self.place(name)),
            Some(kind) => self.value(path, kind, value),
            None if path == "tenants" => self.tenants(value),
            None if keys::is_group(path) => self.group(path, value),
            None => refuse_unknown(self.faults, &self.place(name), path, str::to_owned),
        }
    }

    fn tenants(&mut self, node: &MarkedYaml<'_>) {
        match self.shape(node) {
            Shape::Empty => {}
            Shape::Many(tenants) => {
                for (at, tenant) in tenants.iter().enumerate() {
                    self.found.tenants.insert(at, self.place(tenant));
                    self.group(&format!("tenants[{at}]"), tenant);
                }
            }
            _ => self.refuse(node, "tenants", "must be a list, each tenant after a `-`"),
        }
    }

    fn value(&mut self, path: &str, kind: Kind, node: &MarkedYaml<'_>) {
        let place = self.place(node);
        match self.shape(node) {
            Shape::Empty => {} // as if it were not there
            Shape::One(text) => self.found.put(path, vec![(text, place.clone())], place),
            Shape::Many(nodes) if kind.is_list() => {
                let items: Vec<Item> = nodes
                    .iter()
                    .filter_map(|item| match self.shape(item) {
                        Shape::One(text) => Some((text, self.place(item))),
                        _ => {
                            self.refuse(item, path, &format!("is not {}", kind.describe()));
                            None
                        }
                    })
                    .collect();
                self.found.put(path, items, place);
            }
            _ => self.refuse(node, path, &format!("is not {}", kind.describe())),
        }
    }

    fn properties(&mut self, path: &str, node: &MarkedYaml<'_>) {
        let Shape::Group(entries) = self.shape(node) else {
            if !matches!(self.shape(node), Shape::Empty) {
                self.refuse(node, path, "must be a group of librdkafka properties");
            }
            return;
        };
        for (name, value) in entries {
            match (self.shape(name), self.shape(value)) {
                (Shape::One(property), Shape::One(text)) => {
                    self.found.properties.insert(property, (text, self.place(name)));
                }
                (Shape::One(_), Shape::Empty) => {}
                _ => self.refuse(
                    name,
                    path,
                    "takes plain names with plain values, such as `security.protocol: SASL_SSL`",
                ),
            }
        }
    }

    fn routes(&mut self, path: &str, node: &MarkedYaml<'_>) {
        let Shape::Group(entries) = self.shape(node) else {
            if !matches!(self.shape(node), Shape::Empty) {
                self.refuse(node, path, "must be a group of topics, each with an expression");
            }
            return;
        };
        for (name, value) in entries {
            match (self.shape(name), self.shape(value)) {
                (Shape::One(topic), Shape::One(text)) => {
                    let place = self.place(value);
                    self.found.routes.push((topic, (text, place)));
                }
                _ => {
                    self.refuse(name, path, "takes topics with expressions, such as `sharing: operation = SharingSet`")
                }
            }
        }
    }

    fn shape<'n, 'i>(&self, node: &'n MarkedYaml<'i>) -> Shape<'n, 'i> {
        match &node.data {
            YamlData::Value(Scalar::Null) => Shape::Empty,
            YamlData::Value(Scalar::String(text)) => Shape::One(text.to_string()),
            YamlData::Value(_) | YamlData::Representation(..) => Shape::One(self.raw(node)),
            YamlData::Sequence(items) => Shape::Many(items),
            YamlData::Mapping(entries) => Shape::Group(entries),
            YamlData::Tagged(..) | YamlData::Alias(_) | YamlData::BadValue => Shape::Strange,
        }
    }

    fn raw(&self, node: &MarkedYaml<'_>) -> String {
        let (start, end) = (node.span.start.index(), node.span.end.index());
        self.chars.get(start..end).unwrap_or_default().iter().collect::<String>().trim().to_owned()
    }

    fn refuse(&mut self, node: &MarkedYaml<'_>, path: &str, text: &str) {
        let place = self.place(node);
        self.faults.add(&place, path, text);
    }

    fn place(&self, node: &MarkedYaml<'_>) -> Place {
        Place::Line(self.file.clone(), node.span.start.line())
    }
}
