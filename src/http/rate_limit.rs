//! The headers `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): the limits of the request's
//! key, and what is left of them.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue},
    middleware::Next,
    response::Response,
};

use crate::{generation::Allowance, service::Allowances};

/// Middleware for all protocols: adds the headers to the answer of a request that counts against limits.
pub async fn show(mut request: Request, next: Next) -> Response {
    let allowances = Allowances::default();
    request.extensions_mut().insert(allowances.clone());
    let mut response = next.run(request).await;
    write(&allowances.get(), response.headers_mut());
    response
}

fn write(allowances: &[Allowance], headers: &mut HeaderMap) {
    let list = |item: fn(&Allowance) -> String| allowances.iter().map(item).collect::<Vec<_>>().join(", ");
    for (name, value) in [("ratelimit-policy", list(policy)), ("ratelimit", list(left))] {
        if let Some(value) = HeaderValue::try_from(value).ok().filter(|value| !value.is_empty()) {
            headers.insert(name, value);
        }
    }
}

fn policy(Allowance { policy, quota, window_s, .. }: &Allowance) -> String {
    // The default unit is requests.
    let unit = if *policy == Allowance::DAY { ";qu=\"gigamultiplications\"" } else { "" };
    format!("\"{policy}\";q={quota};w={window_s}{unit}")
}

fn left(Allowance { policy, left, reset_s, .. }: &Allowance) -> String {
    format!("\"{policy}\";r={left};t={reset_s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_an_item_of_both_lists() {
        let rate = Allowance { policy: Allowance::RATE, quota: 60, window_s: 10, left: 12, reset_s: 3 };
        let day = Allowance { policy: Allowance::DAY, quota: 900, window_s: 86_400, left: 0, reset_s: 40 };
        let mut headers = HeaderMap::new();
        write(&[], &mut headers);
        assert!(headers.is_empty());
        write(&[rate, day], &mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"rate\";q=60;w=10, \"day\";q=900;w=86400;qu=\"gigamultiplications\"");
        assert_eq!(headers["ratelimit"], "\"rate\";r=12;t=3, \"day\";r=0;t=40");
    }
}
