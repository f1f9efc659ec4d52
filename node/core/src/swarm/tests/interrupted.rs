//! A site in which something goes wrong all the time: next to nothing is brought twice.

use protocol::wire::Class;
use protocol::{Span, Time};
use rand_core::RngCore;

use super::world::{Release, World, release};

const MIB: u64 = 1 << 20;
/// How long a node that is killed stays down.
const DOWN: u64 = 500;

/// What may go wrong.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// A node is killed and started again before the others count it as gone.
    Kill,
    /// The same, but everybody sees at once that it is gone.
    SeenKill,
    /// Everything that crosses the WAN breaks.
    Cut,
    /// A node is out of the others' sight for a moment, and what goes to and from it breaks.
    Move,
}

impl World {
    fn suffer(&mut self, mishap: Mishap, n: usize, release: &Release) {
        match mishap {
            Mishap::Kill | Mishap::SeenKill => {
                self.kill(n);
                if matches!(mishap, Mishap::SeenKill) {
                    self.views_change(Span(20));
                }
                self.run(DOWN);
                self.start(n);
                self.nodes[n].staged.clear();
                self.want(n, release, Class::Normal);
            }
            Mishap::Cut => {
                self.origin_up = false;
                self.run(DOWN);
                self.origin_up = true;
            }
            Mishap::Move => {
                self.break_transfers(n);
                self.visible.remove(&n);
                self.views_change(Span(20));
                self.run(DOWN);
                self.visible.insert(n);
                self.views_change(Span(20));
            }
        }
    }

    fn done(&self, release: &Release) -> bool {
        let staged = |n: &super::world::Node| n.staged.contains_key(&release.digest);
        self.nodes.iter().all(staged)
    }
}

/// How often the carrier crosses the WAN of three nodes to which so many mishaps happen.
fn copies(seed: u64, kinds: &[Mishap], mishaps: u64) -> f64 {
    let mut world = World::new(3, seed);
    let release = release(seed, 64 * MIB, 64 * MIB);
    let carrier = *release.artifact.full_carrier().unwrap();
    (world.cap, world.wan_rate) = (Some(1_000_000), 1_000_000.0);
    world.start_all();
    world.want_all(&release);
    let end = world.now + Span::from_secs(600);
    let mut happened = 0;
    while !world.done(&release) {
        assert!(world.now < end, "{}", world.report(&release));
        world.run(50);
        let done = world.wan_bytes.get(&carrier).copied().unwrap_or(0);
        if happened < mishaps && done > carrier.length * (happened + 1) / (mishaps + 1) {
            happened += 1;
            let open = |n: &usize| !world.nodes[*n].staged.contains_key(&release.digest);
            let open: Vec<usize> = (0..3).filter(open).collect();
            let kind = kinds[world.rng.next_u32() as usize % kinds.len()];
            let n = open[world.rng.next_u32() as usize % open.len()];
            world.suffer(kind, n, &release);
        }
    }
    assert!(world.now > Time(0) && happened == mishaps);
    world.copies(&carrier)
}

/// The story: a node that was killed while it brought a piece came back and did not go on with it, because it
/// did not know that it had half of it; a neighbour brought all of it. Whoever moved lost its pieces to
/// its neighbours likewise. A hundred such mishaps made 1.05 copies of one here, and 1.24 in the lab.
#[test]
fn what_is_half_here_is_gone_on_with_by_whoever_has_it() {
    for kind in [Mishap::Kill, Mishap::SeenKill, Mishap::Cut, Mishap::Move] {
        let copies = copies(1, &[kind], 25);
        assert!(copies <= 1.01, "{kind:?}: {copies}");
    }
}

#[test]
fn a_hundred_mishaps_cost_a_hundredth() {
    let all = [Mishap::Kill, Mishap::SeenKill, Mishap::Cut, Mishap::Move];
    for seed in 5..8 {
        let copies = copies(seed, &all, 100);
        assert!(copies <= 1.01, "seed {seed}: {copies}");
    }
}
