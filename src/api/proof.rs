//! What proves to the authority who we are: a client secret, a token of another issuer, or an assertion that we sign
//! with a certificate's key. Source: docs/api/contract.md 2.2.

use std::{path::PathBuf, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use openssl::{
    hash::MessageDigest,
    pkey::PKey,
    rsa::Padding,
    sign::{RsaPssSaltlen, Signer},
    x509::X509,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::{ApiError, Cause};
use crate::config::Credential;

/// What a credential holds at one moment; its files may hold something else at the next.
#[derive(Clone)]
pub struct Proof {
    kind: Kind,
    text: SecretString,
    /// Of an encrypted key.
    password: Option<SecretString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Secret,
    FederatedToken,
    /// Certificate and key, PEM.
    Certificate,
}

/// The field of the form that the authority believes, and what stands beside it.
pub struct Field {
    pub name: &'static str,
    pub value: SecretString,
    pub beside: Option<(&'static str, &'static str)>,
}

/// How long an assertion is good for, and how far back it is dated: clocks differ.
const ASSERTION_LIFE: SignedDuration = SignedDuration::from_mins(5);

/// That an assertion is a JWT.
const JWT_BEARER: (&str, &str) = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");

impl Proof {
    /// Reads the credential's files.
    ///
    /// # Errors
    /// [`ApiError::Secret`].
    pub async fn read(credential: &Credential) -> Result<Self, ApiError> {
        let (kind, path, password) = match credential {
            Credential::Secret(secret) => {
                return Ok(Self { kind: Kind::Secret, text: secret.clone(), password: None });
            }
            Credential::SecretFile(path) => (Kind::Secret, path, None),
            Credential::FederatedTokenFile(path) => (Kind::FederatedToken, path, None),
            Credential::Certificate { file, password } => (Kind::Certificate, file, password.as_ref()),
        };
        let text = content(path.clone()).await?;
        let password = match password {
            Some(path) => Some(content(path.clone()).await?),
            None => None,
        };
        Ok(Self { kind, text, password })
    }

    /// Whether nothing has changed since `other` was read.
    pub fn is(&self, other: &Self) -> bool {
        let password = |proof: &Self| proof.password.as_ref().map(|text| text.expose_secret().to_owned());
        self.text.expose_secret() == other.text.expose_secret() && password(self) == password(other)
    }

    /// What goes into a request for a token at `endpoint`.
    ///
    /// # Errors
    /// [`ApiError::Secret`] when the certificate or its key cannot be used.
    pub fn field(&self, endpoint: &str, client_id: &str, now: Timestamp) -> Result<Field, ApiError> {
        let value = match self.kind {
            Kind::Secret => return Ok(Field { name: "client_secret", value: self.text.clone(), beside: None }),
            Kind::FederatedToken => self.text.clone(),
            Kind::Certificate => {
                self.assertion(endpoint, client_id, now).map_err(|source| ApiError::Secret { source })?
            }
        };
        Ok(Field { name: "client_assertion", value, beside: Some(JWT_BEARER) })
    }

    fn assertion(&self, endpoint: &str, client_id: &str, now: Timestamp) -> Result<SecretString, Cause> {
        let fault = |text: &'static str| -> Cause { Arc::new(std::io::Error::other(text)) };
        let pem = self.text.expose_secret().as_bytes();
        let certificates = X509::stack_from_pem(pem).unwrap_or_default();
        // Who does not know the password is told so, instead of being asked on the terminal.
        let password = self.password.as_ref().map_or("", |password| password.expose_secret());
        let key = PKey::private_key_from_pem_passphrase(pem, password.as_bytes());
        let key =
            key.map_err(|_| fault("the certificate's file has no private key, or password_file does not open it"))?;
        let public = key.public_key_to_der().map_err(cause)?;
        let is_of_key = |certificate: &&X509| {
            certificate.public_key().and_then(|public| public.public_key_to_der()).is_ok_and(|theirs| theirs == public)
        };
        let certificate = certificates.iter().find(is_of_key);
        let certificate =
            certificate.ok_or_else(|| fault("the certificate's file has no certificate of its private key"))?;
        let thumbprint = certificate.digest(MessageDigest::sha256()).map_err(cause)?;
        let header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": URL_SAFE_NO_PAD.encode(thumbprint)});
        let claims = json!({
            "aud": endpoint,
            "iss": client_id,
            "sub": client_id,
            "jti": Uuid::from_u128(rand::random()).to_string(),
            "nbf": (now - ASSERTION_LIFE).as_second(),
            "exp": (now + ASSERTION_LIFE).as_second(),
        });
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signer = Signer::new(MessageDigest::sha256(), &key).map_err(cause)?;
        signer.set_rsa_padding(Padding::PKCS1_PSS).map_err(|_| fault("the certificate's key is no RSA key"))?;
        signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).map_err(cause)?;
        let signature = signer.sign_oneshot_to_vec(signed.as_bytes()).map_err(cause)?;
        Ok(SecretString::from(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

fn cause(error: openssl::error::ErrorStack) -> Cause {
    Arc::new(error)
}

async fn content(path: PathBuf) -> Result<SecretString, ApiError> {
    let fault = |source: Cause| ApiError::Secret { source };
    let text = tokio::task::spawn_blocking(move || std::fs::read_to_string(path))
        .await
        .map_err(|lost| fault(Arc::new(lost)))?
        .map_err(|e| fault(Arc::new(e)))?;
    // Editors and `echo` end a file with a line break that is not part of the secret.
    match text.trim() {
        "" => Err(fault(Arc::new(std::io::Error::other("the file is empty")))),
        secret => Ok(SecretString::from(secret)),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use openssl::{rsa::Rsa, sign::Verifier, symm::Cipher};

    use super::*;
    use crate::api::stage::{SecretFile, self_signed};

    const ENDPOINT: &str = "https://login.example/t/oauth2/v2.0/token";

    async fn assertion(pem: &str, password: Option<&str>) -> Result<Field, ApiError> {
        let (file, secret) = (SecretFile::holding(pem), password.map(SecretFile::holding));
        let credential = Credential::Certificate {
            file: file.path().to_owned(),
            password: secret.as_ref().map(|file| file.path().to_owned()),
        };
        Proof::read(&credential).await?.field(ENDPOINT, "client-1", Timestamp::from_second(1_000_000).unwrap())
    }

    async fn refused(pem: &str, password: Option<&str>) -> String {
        let Err(error) = assertion(pem, password).await else { panic!("an assertion was made") };
        error.source().unwrap().to_string()
    }

    #[tokio::test]
    async fn an_assertion_is_signed_with_the_key_and_names_the_certificate() {
        let (certificate, key) = self_signed();
        // A chain, and the key first: only one certificate is the key's.
        let (other, _) = self_signed();
        let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
        let pem = [key.private_key_to_pem_pkcs8(), other.to_pem(), certificate.to_pem()].map(|pem| text(pem.unwrap()));
        let field = assertion(&pem.concat(), None).await.unwrap();
        assert_eq!((field.name, field.beside), ("client_assertion", Some(JWT_BEARER)));
        let (signed, signature) = field.value.expose_secret().rsplit_once('.').unwrap();
        let mut verifier = Verifier::new(MessageDigest::sha256(), &key).unwrap();
        verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
        assert!(verifier.verify_oneshot(&URL_SAFE_NO_PAD.decode(signature).unwrap(), signed.as_bytes()).unwrap());
        let parts: Vec<Value> = signed
            .split('.')
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        let thumbprint = URL_SAFE_NO_PAD.encode(certificate.digest(MessageDigest::sha256()).unwrap());
        assert_eq!(parts[0], json!({"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint}));
        assert_eq!([&parts[1]["aud"], &parts[1]["iss"], &parts[1]["sub"]], [ENDPOINT, "client-1", "client-1"]);
        assert_eq!((parts[1]["nbf"].as_i64(), parts[1]["exp"].as_i64()), (Some(999_700), Some(1_000_300)));
    }

    #[tokio::test]
    async fn an_encrypted_key_needs_its_password_and_a_file_must_be_whole() {
        let (certificate, key) = self_signed();
        let certificate = String::from_utf8(certificate.to_pem().unwrap()).unwrap();
        let locked = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"open sesame").unwrap();
        let pem = certificate.clone() + &String::from_utf8(locked).unwrap();
        assert!(assertion(&pem, Some("open sesame\n")).await.is_ok());
        for password in [None, Some("another")] {
            assert!(refused(&pem, password).await.contains("password_file does not open it"));
        }
        assert!(refused(&certificate, None).await.contains("no private key"));
        let stranger = PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap().private_key_to_pem_pkcs8().unwrap();
        let pem = certificate + &String::from_utf8(stranger).unwrap();
        assert!(refused(&pem, None).await.contains("no certificate of its private key"));
    }
}
