//! How a source sends over a connection: quinn's congestion controller, and the one for WANs, which sends
//! by whatever manner `node_core::congestion` asks for.
//!
//! A controller sits at the sender, so only who is asked chooses: at the connection by its two addresses,
//! and again whenever a request begins or ends.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use node_core::congestion::{Background, Link, Manner, Micros};
use protocol::wire::Class;
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

/// What a WAN connection is asked to carry, and how that has it send.
#[derive(Debug)]
pub(super) struct Manners {
    link: Link,
    under_way: Mutex<Vec<Class>>,
    fair: AtomicBool,
}

impl Manners {
    pub(super) fn of(link: Link) -> Arc<Manners> {
        let manners = Manners {
            link,
            under_way: Mutex::default(),
            fair: AtomicBool::new(false),
        };
        manners.choose(&[]);
        Arc::new(manners)
    }

    /// A request of this class is served until the guard is dropped.
    pub(super) fn serve(self: &Arc<Manners>, class: Class) -> Serving {
        self.change(|under_way| under_way.push(class));
        Serving {
            manners: self.clone(),
            class,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Class>)) {
        let mut under_way = self.under_way.lock().expect("no panic under this lock");
        change(&mut under_way);
        self.choose(&under_way);
    }

    fn choose(&self, under_way: &[Class]) {
        let manner = self.link.manner(under_way.iter().max().copied());
        self.fair.store(manner == Manner::Fair, Ordering::Relaxed);
    }
}

/// A request that is being served.
pub(super) struct Serving {
    manners: Arc<Manners>,
    class: Class,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.manners.change(|under_way| {
            if let Some(place) = under_way.iter().position(|class| *class == self.class) {
                under_way.swap_remove(place);
            }
        });
    }
}

impl ControllerFactory for Manners {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(WanController {
            manners: self,
            epoch: now,
            mtu: current_mtu,
            background: Background::new(current_mtu.into()),
            fair: None,
        })
    }
}

/// Background, and Cubic (RFC 9438) while the manner is fair. The background window goes on watching
/// meanwhile, so that it knows the path when its turn comes.
struct WanController {
    manners: Arc<Manners>,
    epoch: Instant,
    mtu: u16,
    background: Background,
    fair: Option<Box<dyn Controller>>,
}

impl WanController {
    fn micros(&self, at: Instant) -> Micros {
        let since = at.saturating_duration_since(self.epoch);
        // Nothing at zero: the first packets may have left just before the controller was made.
        let since = since + Duration::from_secs(1);
        Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn follow_manner(&mut self, now: Instant) {
        let fair = self.manners.fair.load(Ordering::Relaxed);
        match (&self.fair, fair) {
            (None, true) => {
                let mut config = CubicConfig::default();
                config.initial_window(self.background.window());
                let cubic = Cubic::new(Arc::new(config), now, self.mtu);
                self.fair = Some(Box::new(cubic));
            }
            (Some(_), false) => self.fair = None,
            _ => {}
        }
    }
}

impl Controller for WanController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.follow_manner(now);
        if let Some(fair) = &mut self.fair {
            fair.on_sent(now, bytes, last_packet_number);
        }
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        let times = [now, sent].map(|at| self.micros(at));
        self.background
            .acked(times[0], times[1], bytes, app_limited);
        if let Some(fair) = &mut self.fair {
            fair.on_ack(now, sent, bytes, app_limited, rtt);
        }
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.background.acks_end(self.micros(now));
        if let Some(fair) = &mut self.fair {
            fair.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
        }
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        let times = [now, sent].map(|at| self.micros(at));
        self.background
            .lost(times[0], times[1], lost_bytes, is_persistent_congestion);
        if let Some(fair) = &mut self.fair {
            fair.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.background.packet_is(new_mtu.into());
        if let Some(fair) = &mut self.fair {
            fair.on_mtu_update(new_mtu);
        }
    }

    fn window(&self) -> u64 {
        match &self.fair {
            Some(fair) => fair.window(),
            None => self.background.window(),
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(WanController {
            manners: self.manners.clone(),
            epoch: self.epoch,
            mtu: self.mtu,
            background: self.background.clone(),
            fair: self.fair.as_ref().map(|fair| fair.clone_box()),
        })
    }

    fn initial_window(&self) -> u64 {
        Background::new(self.mtu.into()).window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::data::endpoint;
    use crate::net::identity::fixture::TestFleet;

    /// quinn's own loop drives the controller: acknowledgements, a search for the MTU, a change of manner.
    #[tokio::test]
    async fn a_stream_over_a_wan_arrives_whole_in_either_manner() {
        const LENGTH: usize = 3_000_000;
        let fleet = TestFleet::new("fleet");
        let [source, asker] = [1, 2].map(|n| fleet.identity(n));
        let bind = |identity| {
            let any = "127.0.0.1:0".parse().unwrap();
            endpoint::bind(any, identity, Arc::default()).unwrap()
        };
        let (from, to) = (bind(&source), bind(&asker));
        let address = from.local_addr().unwrap();
        let manners = Manners::of(Link::Far);
        let near = endpoint::server_config(&source).unwrap();
        let far = Arc::new(endpoint::over_wan(&near, manners.clone()));
        let serving = async {
            let incoming = from.accept().await.unwrap();
            let connection = incoming.accept_with(far).unwrap().await.unwrap();
            let (mut stream, _from) = connection.accept_bi().await.unwrap();
            let half = vec![7; LENGTH / 2];
            stream.write_all(&half).await.unwrap();
            let _urgent = manners.serve(Class::Emergency);
            stream.write_all(&half).await.unwrap();
            stream.finish().unwrap();
            connection.closed().await;
        };
        let asking = async {
            let config = endpoint::client_config(&asker, source.node(), false).unwrap();
            let name = source.node().to_string();
            let connecting = to.connect_with(config, address, &name).unwrap();
            let connection = connecting.await.unwrap();
            let (mut ask, mut stream) = connection.open_bi().await.unwrap();
            ask.write_all(b"?").await.unwrap();
            let bytes = stream.read_to_end(LENGTH).await.unwrap();
            assert_eq!(bytes, vec![7; LENGTH]);
            connection.close(0u32.into(), b"");
        };
        tokio::join!(serving, asking);
    }

    #[test]
    fn an_emergency_competes_as_long_as_it_lasts() {
        let manners = Manners::of(Link::Far);
        let now = Instant::now();
        let mut controller = manners.clone().build(now, 1_200);
        let at_first = controller.window();
        let after_a_loss = |controller: &mut Box<dyn Controller>, second: u64| {
            let now = now + Duration::from_secs(second);
            controller.on_sent(now, 1_200, second);
            controller.on_congestion_event(now, now, false, 1_200);
            controller.window()
        };
        // a loss without a queue is the line's own
        assert_eq!(after_a_loss(&mut controller, 1), at_first);
        let staging = manners.serve(Class::Background);
        let urgent = manners.serve(Class::Emergency);
        assert!(
            after_a_loss(&mut controller, 2) < at_first,
            "Cubic yields to every loss"
        );
        drop(urgent);
        assert_eq!(after_a_loss(&mut controller, 3), at_first);
        drop(staging);
        assert_eq!(after_a_loss(&mut controller, 4), at_first);
    }
}
