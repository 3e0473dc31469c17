//! The receiver of notifications: which keys belong together, and the secret.

use std::{fs, io, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{
    kind::Value,
    reader::Reader,
    settings::{AuthId, Tls, Webhook},
};

/// What stands between the world and the listings must not be guessed.
const SHORTEST: usize = 16;

pub(super) fn webhook(reader: &mut Reader) -> Webhook {
    let enabled = reader.value("webhook.enabled").flag();
    let auth_id = auth_id(reader);
    if enabled && auth_id.is_none() && !is_auth_id_written(reader) {
        reader.refuse(
            &["webhook.auth_id_file", "webhook.enabled"],
            "is missing; a receiver needs auth_id_file or auth_id_env, or anybody could write to it",
        );
    }
    let file = |reader: &mut Reader, key| reader.option(key).map(|file| PathBuf::from(file.text()));
    let (certificate, key) = (file(reader, "webhook.certificate_file"), file(reader, "webhook.key_file"));
    if certificate.is_some() != key.is_some() {
        let keys = ["webhook.certificate_file", "webhook.key_file"];
        reader.refuse(&keys, "certificate_file and key_file belong together; give both or neither");
    }
    Webhook {
        enabled,
        listen: reader.value("webhook.listen").address(),
        public_url: reader.option("webhook.public_url").map(Value::origin),
        auth_id,
        tls: certificate.zip(key).map(|(certificate_file, key_file)| Tls { certificate_file, key_file }),
        missed_after: reader.value("webhook.missed_after").span(),
    }
}

fn is_auth_id_written(reader: &Reader) -> bool {
    ["webhook.auth_id_file", "webhook.auth_id_env"].iter().any(|key| reader.is_written(key))
}

fn auth_id(reader: &mut Reader) -> Option<AuthId> {
    let (file, variable) = ("webhook.auth_id_file", "webhook.auth_id_env");
    if reader.is_written(file) && reader.is_written(variable) {
        reader.refuse(&[variable], "stands beside auth_id_file; give exactly one of them");
        return None;
    }
    if let Some(path) = reader.option(file) {
        return Some(AuthId::File(PathBuf::from(path.text())));
    }
    let name = reader.option(variable)?.text();
    let text = reader.env.get(&name).map(|text| text.trim().to_owned()).unwrap_or_default();
    match fit(&text) {
        Ok(()) => Some(AuthId::Text(SecretString::from(text))),
        Err(why) => {
            reader.refuse(&[variable], format!("the environment variable `{name}` {why}"));
            None
        }
    }
}

impl AuthId {
    /// The secret, from its file if it is in one.
    ///
    /// # Errors
    /// When the file cannot be read, or what is in it is no good; the text names the file and nothing of what is in it.
    pub fn read(&self) -> io::Result<SecretString> {
        match self {
            Self::Text(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let named = |why: String| io::Error::other(format!("{}: {why}", path.display()));
                let text = fs::read_to_string(path).map_err(|fault| named(fault.to_string()))?;
                let secret = SecretString::from(text.trim());
                fit(secret.expose_secret()).map_err(|why| named(why.to_owned()))?;
                Ok(secret)
            }
        }
    }
}

fn fit(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Err("is not set or empty"),
        _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err("holds what a header cannot carry: use letters, digits and signs of ASCII")
        }
        _ if text.len() < SHORTEST => Err("is shorter than 16 characters, and so could be guessed"),
        _ => Ok(()),
    }
}
