//! What to do about a receiver that did not take a delivery.

use pipelet_proto::v1::Webhook;

/// The next step, after an attempt at this webhook that ended with this status or code.
pub(crate) fn advice(webhook: &Webhook, status: Option<u32>, code: Option<&str>) -> String {
    let code = code.unwrap_or_default();
    match status {
        // An answer may begin well and end badly.
        Some(status) if code.is_empty() || code.starts_with("http_") => on_answer(webhook, status),
        _ => on_failure(&webhook.url, code),
    }
}

fn on_failure(url: &str, code: &str) -> String {
    match code {
        "certificate_expired" => "have the receiver's certificate renewed".to_owned(),
        "certificate_not_yet_valid" => "compare both machines' clocks".to_owned(),
        "certificate_unknown_issuer" => {
            "start pipeletd with the receiver's authority in --ca-file, \
             or have the receiver send its whole chain"
                .to_owned()
        }
        "certificate_wrong_name" => format!("use the certificate's name in the URL ({url})"),
        "tls" => format!("see that it speaks https there, and which version of TLS ({url})"),
        "broken_off" | "protocol" if url.starts_with("http://") => {
            format!("see that it speaks http there, and not https ({url})")
        }
        "private_target" => "--allow-target lets webhooks go there".to_owned(),
        "dns" => format!("look at the host's name in the URL ({url})"),
        "timeout" | "answer_timeout" => {
            "have the receiver answer first and work later; see --delivery-timeout".to_owned()
        }
        _ => format!("see that {url} can be reached from where the daemon runs"),
    }
}

fn on_answer(webhook: &Webhook, status: u32) -> String {
    let signed = webhook.has_signing_secret;
    match (status, webhook.secret_header.as_deref()) {
        (401 | 403, None) if signed => {
            "compare the signing secret with the receiver's (`pipeletctl webhooks rotate-secret` \
             makes a new one)"
                .to_owned()
        }
        (401 | 403, Some(header)) if signed => format!(
            "compare the header's name ({header}), the secret's value and the signing secret with \
             the receiver's"
        ),
        (401 | 403, Some(header)) => format!(
            "compare the header's name ({header}) and the secret's value with the receiver's; \
             `pipeletctl webhooks update {} --secret-value-file FILE` sets another",
            webhook.id
        ),
        (401 | 403, None) => format!(
            "it has no secret: give it what the receiver wants (`pipeletctl webhooks update {} \
             --secret-header HEADER --secret-value-file FILE`)",
            webhook.id
        ),
        (404 | 405, _) => "check the path of its URL, and that it takes POST".to_owned(),
        (300..=399, _) => "redirects are not followed: give it the final URL".to_owned(),
        (429, _) => "the receiver wants to be asked less often; see its limits".to_owned(),
        (500..=599, _) => "the receiver's own log says why".to_owned(),
        (_, _) => "see the receiver's documentation and log".to_owned(),
    }
}
