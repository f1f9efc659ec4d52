//! Seeds that broke a rule once must break none again, and a few fresh ones neither.

use std::path::Path;

use simulations::Scenario;
use simulations::seeds::{kept, play_one};

#[test]
fn kept_seeds_stay_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("../tests/seeds.txt")).expect("the kept seeds");
    for seed in kept(&text).expect("well-formed lines") {
        let mut scenario = match seed.what.as_str() {
            "drawn" => Scenario::drawn(seed.seed),
            name => {
                Scenario::load(&root.join(format!("scenarios/{name}.toml"))).expect("a scenario")
            }
        };
        scenario.seed = seed.seed;
        let (_, violations) = play_one(scenario);
        assert_eq!(violations, [""; 0], "{}", seed.to_line());
    }
}
