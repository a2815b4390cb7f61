//! Parameters of a query or of a form.

use axum::http::Uri;
use reqwest::Url;

/// The parameters, decoded, in order.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Those behind a path.
    pub fn of(uri: &Uri) -> Self {
        Self::parse(uri.query().unwrap_or_default())
    }

    /// Those in a text such as `a=1&b=2`.
    pub fn parse(text: &str) -> Self {
        let mut url = empty();
        url.set_query(Some(text));
        Self(url.query_pairs().into_owned().collect())
    }

    /// The first of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every one of that name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first of that name, as a number.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.get(name)?.parse().ok()
    }

    /// All of them as a text, `name` being `value`.
    pub fn with(&self, name: &str, value: &str) -> String {
        let mut url = empty();
        let kept =
            self.0.iter().filter(|(key, _)| key != name).map(|(key, value)| (key.as_str(), value.as_str()));
        url.query_pairs_mut().extend_pairs(kept.chain([(name, value)]));
        url.query().unwrap_or_default().to_owned()
    }
}

/// Something to hang a query on.
fn empty() -> Url {
    Url::parse("http://x/").expect("invariant: a constant that is an address")
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn parameters_are_decoded_and_replaced() {
        let query = Query::parse("a=1&b=x%20y&a=2");
        assert_eq!((query.get("b"), query.number("a")), (Some("x y"), Some(1)));
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.with("a", "3&4"), "b=x+y&a=3%264");
    }
}
