//! What was asked for, made whole: do the thresholds make sense, which ports are free.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use super::{InitError, KeySpec, Options};

/// Names that people give are cut off here.
const FLEET_NAME_MAX_BYTES: usize = 64;
/// Ports that are tried until one is free for TCP and UDP.
const PORT_ATTEMPTS: u32 = 64;

/// The addresses with their ports chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub api: SocketAddr,
    pub control: SocketAddr,
    pub origin_control: SocketAddr,
    pub origin_data: SocketAddr,
}

pub(super) fn check(options: &Options) -> Result<(), InitError> {
    let refuse = |why: String| Err(InitError::Options(why));
    if options.fleet_name.is_empty() || options.fleet_name.len() > FLEET_NAME_MAX_BYTES {
        return refuse(format!(
            "a fleet's name has 1 to {FLEET_NAME_MAX_BYTES} bytes"
        ));
    }
    let roles: [(&str, &[KeySpec], u32); 3] = [
        ("root", &options.root, options.root_threshold),
        ("releases", &options.releases, options.releases_threshold),
        ("operators", &options.operators, options.plans_threshold),
    ];
    let mut names = BTreeSet::new();
    for (role, keys, threshold) in roles {
        if threshold == 0 || threshold as usize > keys.len() {
            return refuse(format!(
                "{threshold} of {} keys cannot sign for {role}; choose 1 to {}",
                keys.len(),
                keys.len()
            ));
        }
        if let Some(twice) = keys.iter().find(|key| !names.insert(&key.name)) {
            return refuse(format!(
                "key name {} stands twice; each key needs its own",
                twice.name
            ));
        }
    }
    if options.plans_threshold as usize >= options.operators.len() {
        return refuse(format!(
            "{} approvals cannot come from {} operators, because the proposer's never counts; name one operator more or lower the threshold",
            options.plans_threshold,
            options.operators.len()
        ));
    }
    if options.origin_control.ip() != options.origin_data.ip() {
        return refuse(
            "the origin's control and data plane must listen on the same address".into(),
        );
    }
    let listens = [options.api, options.control, options.origin_control];
    if options.public.is_none() && listens.iter().any(|a| a.ip().is_unspecified()) {
        return refuse(
            "nodes cannot reach an unspecified address; give the public one as well".into(),
        );
    }
    Ok(())
}

/// Chooses free ports where none was asked for. All are held until the last is chosen.
pub(super) fn settle(options: &Options) -> Result<Ports, InitError> {
    let mut held = Held::default();
    let mut ports = Ports {
        api: options.api,
        control: options.control,
        origin_control: options.origin_control,
        origin_data: options.origin_data,
    };
    for (address, udp) in [
        (&mut ports.api, false),
        (&mut ports.control, true),
        (&mut ports.origin_control, true),
        (&mut ports.origin_data, true),
    ] {
        if address.port() == 0 {
            address.set_port(held.free_port(address.ip(), udp)?);
        }
    }
    Ok(ports)
}

#[derive(Default)]
struct Held {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Held {
    fn free_port(&mut self, ip: IpAddr, udp: bool) -> Result<u16, InitError> {
        let refuse =
            |e: std::io::Error| InitError::Options(format!("no port can be had on {ip}: {e}"));
        for _ in 0..PORT_ATTEMPTS {
            let listener = TcpListener::bind((ip, 0)).map_err(refuse)?;
            let port = listener.local_addr().map_err(refuse)?.port();
            self.tcp.push(listener);
            if !udp {
                return Ok(port);
            }
            if let Ok(socket) = UdpSocket::bind((ip, port)) {
                self.udp.push(socket);
                return Ok(port);
            }
        }
        Err(InitError::Options(format!(
            "no port is free for both TCP and UDP on {ip}"
        )))
    }
}
