//! The fleet says who needs a release before any content moves.

use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

#[test]
fn each_node_answers_by_the_signed_rules_and_fetches_nothing() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 3,
        wan: "200mbit",
    });
    world.describe(2, "criticality", "mission_critical");
    // Somebody installed it on the first node by other means.
    let product = world.nodes[0].dir.join("install/tool");
    std::fs::create_dir_all(&product).expect("made");
    std::fs::write(product.join("here"), "").expect("written");
    let recipe = world.path("recipe.json");
    let text_of = r#"{"steps": [["true"]], "detect": ["test", "-e", "here"]}"#;
    std::fs::write(&recipe, text_of).expect("written");
    let tree = world.path("tree");
    trees::make(&tree, 1, 1 << 20);
    let rules = [
        "--recipe",
        text(&recipe),
        "--applies-to",
        "criticality!=mission_critical",
    ];
    world.publish_as("tool", &tree, "1.0", &rules);

    let asked = ["release", "assess", "tool@1.0", "--wait", "4m", "--json"];
    let answered = world.tidegate(&asked);
    let view: serde_json::Value = serde_json::from_str(&answered).expect("JSON");
    let expected = serde_json::json!({
        "needs": 1,
        "already_installed": 1,
        "not_applicable": 1,
        "no_answer": 0,
    });
    assert_eq!(view["counts"], expected, "{}", world.logs());

    let shown = world.tidegate(&["release", "assess", "tool@1.0"]);
    let filter = shown
        .split('\'')
        .nth(1)
        .expect("a filter that finds who needs it");
    let found = world.tidegate(&["nodes", "--json", "--where", filter]);
    let found: serde_json::Value = serde_json::from_str(&found).expect("JSON");
    let ids: Vec<&str> = found
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|node| node["node"].as_str())
        .collect();
    assert_eq!(ids, [world.nodes[1].id.to_string()]);

    for node in &world.nodes {
        let blobs = std::fs::read_dir(node.dir.join("store/blobs")).expect("its store");
        assert_eq!(blobs.count(), 0, "no content came to {}", node.id);
    }
    assert!(world.tidegate(&["why", ids[0]]).lines().count() <= 1);

    let ended = world.tidegate(&["release", "assess", "tool@1.0", "--end"]);
    assert!(ended.contains("asked about tool@1.0 no more"), "{ended}");
}
