//! Configuration files for the gateway of a test bed, written the way a person would.

use std::fmt::Write;
use std::net::SocketAddr;

use gateway_core::fleet::{VipAddr, backend_at};

/// A whole configuration; [`toml`](GatewayConfig::toml) is its text.
#[derive(Clone, Debug, Default)]
pub struct GatewayConfig {
    /// Further lines of the section `[gateway]`.
    pub gateway_lines: String,
    /// VIPs.
    pub vips: Vec<Vip>,
    /// Pools.
    pub pools: Vec<Pool>,
}

/// A VIP.
#[derive(Clone, Debug)]
pub struct Vip {
    /// Name.
    pub name: String,
    /// Addresses and ports.
    pub addr: VipAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// `l4` or `l7`.
    pub layer: &'static str,
    /// Name of its pool.
    pub pool: String,
    /// Further lines, such as `guard = true`.
    pub lines: String,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Name.
    pub name: String,
    /// `learned`, `static`, `equal` or `manual`.
    pub weights: &'static str,
    /// Further lines of the section `[[pool]]`, such as `algorithm = "maglev"`.
    pub lines: String,
    /// Its backends.
    pub backends: Vec<Backend>,
    /// Sections that follow the backends, such as `[pool.probe]`.
    pub sections: String,
}

/// A backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Name.
    pub name: String,
    /// Address and port; port 0: the one that the client asked for.
    pub addr: SocketAddr,
    /// Further lines, such as `admission = "draining"`.
    pub lines: String,
}

/// The HTTP probe of the lab: fast enough that a sick backend is out within two seconds.
pub const HTTP_PROBE: &str = r#"
[pool.probe]
kind = "http"
path = "/healthz"
interval = "500ms"
timeout = "400ms"
rise = 2
fall = 2
"#;

impl GatewayConfig {
    /// The text of the file, for a gateway attached to `interfaces`, with its pins in `pin_dir`.
    pub fn toml(&self, interfaces: &[String], admin: SocketAddr, pin_dir: &str) -> String {
        let mut text = format!(
            "[gateway]\ninterfaces = {interfaces:?}\nadmin = \"{admin}\"\npin_dir = {pin_dir:?}\n{}\n",
            self.gateway_lines
        );
        for vip in &self.vips {
            let Vip { name, addr, protocol, layer, pool, lines } = vip;
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "[[vip]]\nname = {name:?}\naddress = \"{addr}\"\nprotocol = {protocol:?}\n\
                 layer = {layer:?}\npool = {pool:?}\n{lines}\n"
            );
        }
        for pool in &self.pools {
            pool.write(&mut text);
        }
        text
    }
}

impl Pool {
    fn write(&self, text: &mut String) {
        let Pool { name, weights, lines, .. } = self;
        // Writing to a string does not fail.
        let _ = writeln!(text, "[[pool]]\nname = {name:?}\nweights = {weights:?}\n{lines}\n");
        for Backend { name, addr, lines } in &self.backends {
            let addr = backend_at(*addr);
            let _ = writeln!(
                text,
                "[[pool.backend]]\nname = {name:?}\naddress = \"{addr}\"\n{lines}\n"
            );
        }
        text.push_str(&self.sections);
        text.push('\n');
    }
}

impl GatewayConfig {
    /// One VIP of TCP named `web` over one pool named `web`.
    pub fn one_pool(
        addr: impl Into<VipAddr>,
        layer: &'static str,
        weights: &'static str,
        backends: Vec<Backend>,
    ) -> GatewayConfig {
        let web = "web".to_owned();
        let (name, pool, lines) = (web.clone(), web.clone(), String::new());
        let vip = Vip { name, addr: addr.into(), protocol: "tcp", layer, pool, lines };
        let pool = Pool {
            name: web,
            weights,
            lines: String::new(),
            backends,
            sections: HTTP_PROBE.to_owned(),
        };
        GatewayConfig { gateway_lines: String::new(), vips: vec![vip], pools: vec![pool] }
    }
}
