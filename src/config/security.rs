//! The keys of authentication.

use super::ConfigError;
use super::properties::Property;
use super::values::Values;
use crate::model::DigestAlgorithm;

/// Where Apache's own providers are.
const PROVIDERS: &str = "org.apache.zookeeper.server.auth.";

impl Values<'_> {
    pub(super) fn digest_algorithm(&self) -> Result<DigestAlgorithm, ConfigError> {
        const KEY: &str = "DigestAuthenticationProvider.digestAlg";
        let Some(name) = self.text(KEY) else { return Ok(DigestAlgorithm::default()) };
        DigestAlgorithm::parse(name).ok_or_else(|| {
            let what = format!(
                "{name} is not offered; write SHA1, SHA-224, SHA-256, SHA-384, SHA-512, \
                 SHA-512/224 or SHA-512/256"
            );
            self.wrong(KEY, &what)
        })
    }

    /// Every scheme must be one that a client can be authenticated by; with a scheme that is not
    /// offered nobody could use the server.
    pub(super) fn enforced_auth_schemes(&self) -> Result<Vec<String>, ConfigError> {
        const KEY: &str = "enforce.auth.schemes";
        if !self.lenient_true("enforce.auth.enabled", false) {
            return Ok(Vec::new());
        }
        let Some(list) = self.text(KEY) else {
            let what = "needs enforce.auth.schemes, for example digest";
            return Err(self.wrong("enforce.auth.enabled", what));
        };
        let schemes: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
        let has_digest = self.lenient_true("DigestAuthenticationProvider.enabled", true);
        let has_ensemble = self.ensemble_auth_names()?.is_some();
        for scheme in &schemes {
            let what = match scheme.as_str() {
                "ip" => continue,
                "digest" if has_digest => continue,
                "ensemble" if has_ensemble => continue,
                "sasl" => "scheme sasl: SASL is not built yet".to_owned(),
                "x509" => "scheme x509: TLS is not built yet".to_owned(),
                other => format!("scheme {other:?} is not offered"),
            };
            return Err(self.wrong(KEY, &what));
        }
        Ok(schemes)
    }

    /// Providers are listed by their Java classes. Digest and IP are always there.
    pub(super) fn ensemble_auth_names(&self) -> Result<Option<Vec<String>>, ConfigError> {
        let mut offered = false;
        for property in self.family("authProvider.") {
            let Property { key, value, .. } = property;
            match value.strip_prefix(PROVIDERS) {
                Some("DigestAuthenticationProvider" | "IPAuthenticationProvider") => {}
                Some("EnsembleAuthenticationProvider") => offered = true,
                Some("SASLAuthenticationProvider") => {
                    return Err(self.wrong_property(property, "SASL is not built yet"));
                }
                Some("X509AuthenticationProvider") => {
                    return Err(self.wrong_property(property, "TLS is not built yet"));
                }
                _ => {
                    let what = format!(
                        "{value} cannot be loaded; {key} can name the digest, ip and ensemble \
                         providers of {PROVIDERS}"
                    );
                    return Err(self.wrong_property(property, &what));
                }
            }
        }
        let names = self.text("ensembleAuthName").unwrap_or_default();
        let names = names.split(',').map(|name| name.trim().to_owned());
        Ok(offered.then(|| names.filter(|name| !name.is_empty()).collect()))
    }
}
