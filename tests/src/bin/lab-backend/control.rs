//! Where faults are switched: `POST /fault` with an order, `GET /fault` to look.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use gateway_tests::fault::{Fault, Order};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The switch of each server, by its port.
pub(crate) type Switches = Arc<[(u16, watch::Sender<Fault>)]>;

/// Takes orders for ever.
///
/// # Errors
/// The listener failed.
pub(crate) async fn run(listener: TcpListener, switches: Switches) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let switches = Arc::clone(&switches);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&switches)));
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    switches: Switches,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/fault") => (StatusCode::OK, show(&switches)),
        (&Method::POST, "/fault") => match order(request, &switches).await {
            Ok(()) => (StatusCode::OK, show(&switches)),
            Err(mistake) => (StatusCode::BAD_REQUEST, mistake),
        },
        _ => (StatusCode::NOT_FOUND, "GET or POST /fault\n".to_owned()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    Ok(response)
}

async fn order(request: Request<Incoming>, switches: &Switches) -> Result<(), String> {
    let body = request.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    let order: Order = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let fault = order.fault.check()?;
    let meant: Vec<_> = switches
        .iter()
        .filter(|(port, _)| order.port.is_none_or(|wanted| wanted == *port))
        .collect();
    if meant.is_empty() {
        return Err(format!("no server on port {}", order.port.unwrap_or_default()));
    }
    for (_, switch) in meant {
        switch.send_replace(fault);
    }
    Ok(())
}

/// The present fault of each server, as the orders that would make it.
fn show(switches: &Switches) -> String {
    let orders: Vec<Order> = switches
        .iter()
        .map(|(port, switch)| Order { port: Some(*port), fault: *switch.borrow() })
        .collect();
    serde_json::to_string(&orders).unwrap_or_default()
}
