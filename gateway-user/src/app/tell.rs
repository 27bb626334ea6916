//! From what the core wants told to a message on its way.

use gateway_core::telling::{News, Telling};

use crate::control::Listener;
use crate::notify::{Message, Notifier};

/// Hands everything that the loop wants told to the notifier.
pub(super) fn listener(notifier: Notifier) -> Listener {
    Box::new(move |telling| match message(telling) {
        Ok(message) => notifier.tell(message),
        Err(error) => tracing::error!(%error, "news cannot be written as JSON; nobody is told"),
    })
}

fn message(telling: Telling) -> serde_json::Result<Message> {
    let Telling { news, target } = telling;
    Ok(Message {
        about: news.about(),
        replaces: news.replaces().map(str::to_owned),
        target,
        body: body(&news)?.into(),
        environment: Vec::new(),
        hearer: None,
    })
}

fn body(news: &News) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(news)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gateway_core::forecast::{Source, Wanted, WantedAhead};
    use gateway_core::target::{HttpUrl, Target, Webhook};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_the_core_wants_told_arrives_as_json() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/scale", listener.local_addr().unwrap());
        let webhook =
            Webhook { url: HttpUrl::parse(&url).unwrap(), timeout: Duration::from_secs(20) };
        let wanted = Wanted {
            backends: 6,
            wanted: 11,
            wanted_now: 2,
            horizons: vec![WantedAhead { horizon: "15m", wanted: 11 }],
            peak: 701.0,
            each: 100.0,
            busy: 0.7,
            source: Source::Substitute,
            why: "because".to_owned(),
        };
        let news = News::Autoscale { pool: "web".to_owned(), wanted };
        let (notifier, deliveries) = crate::notify::new();
        let running = tokio::spawn(deliveries.run(std::future::pending()));
        let tell = super::listener(notifier);
        tell(Telling { news, target: Target::Webhook(webhook) });

        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0, "it ended early");
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        let request = String::from_utf8(request).unwrap();
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let told: serde_json::Value = serde_json::from_str(body).unwrap();
        let wanted = serde_json::json!({
            "about": "autoscale",
            "pool": "web",
            "backends": 6,
            "wanted": 11,
            "wanted_now": 2,
            "horizons": [{ "horizon": "15m", "wanted": 11 }],
            "peak": 701.0,
            "each": 100.0,
            "busy": 0.7,
            "source": "substitute",
            "why": "because",
        });
        assert_eq!(told, wanted);
        running.abort();
    }
}
