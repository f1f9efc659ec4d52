//! The figures of the gates, at a size that every run of the tests can afford. `tidegate-sim gates` prints
//! those of 300 seeds at 100,000 nodes.

use simulations::gates::Asked;

#[test]
fn a_bad_release_is_stopped_early_and_a_good_one_is_not() {
    let asked = Asked {
        seeds: 12,
        nodes: 10_000,
        json: false,
        threads: 0,
    };
    let tables = asked.play().expect("the trials are played");
    let ours = tables.ours;
    assert!(ours.fully_bad.max <= 60.0, "{ours:?}");
    assert!(ours.regression_5.max <= 60.0, "{ours:?}");
    assert!(ours.regression_2.max <= 150.0, "{ours:?}");
    assert!(ours.silent.max <= 100.0, "{ours:?}");
    assert!(ours.cohort.max <= 60.0, "{ours:?}");
    assert!(ours.cohort_others_percent_min >= 97.0, "{ours:?}");
    assert!(ours.false_halts.max == 0.0, "{ours:?}");
    // it costs something: the trials do reach everyone and do strike
    assert!(ours.fully_bad.median >= 1.0 && ours.regression_2.median >= 5.0);
    assert!(
        tables.by_time.fully_bad.median == 10_000.0,
        "nothing stops it"
    );
    assert!(tables.threshold_10.regression_5.median > ours.regression_5.max);
}

#[test]
fn the_same_seeds_give_the_same_figures_on_any_number_of_threads() {
    let table = |threads| {
        let asked = Asked {
            seeds: 3,
            nodes: 1000,
            json: true,
            threads,
        };
        asked.play().expect("the trials are played")
    };
    assert_eq!(table(1), table(3));
}
