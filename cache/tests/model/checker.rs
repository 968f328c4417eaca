//! Explores a scenario and says what came of it.

use std::{collections::HashMap, sync::Arc, time::Instant};

use stateright::{Checker as _, HasDiscoveries, Model, Path, Property, UniformChooser};

use crate::{
    actions::{self, Action},
    properties,
    scenario::Scenario,
    step::{Met, Situation, Step},
    world::World,
};

/// As many as CI has.
const THREADS: usize = 2;

/// A scenario, as the checker wants it.
pub(crate) struct Exploration {
    pub(crate) scenario: Scenario,
    met: Arc<Met>,
}

impl Model for Exploration {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions::enabled(&self.scenario, world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut step = Step { scenario: &self.scenario, met: &self.met, world: world.clone() };
        step.take(action);
        (step.world != *world).then_some(step.world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

/// Explores every state and wants all properties to hold and all these situations to be met.
pub(crate) fn holds(scenario: Scenario, situations: &[Situation]) {
    let met = Arc::new(Met::default());
    let begun = now();
    let checker = Exploration { scenario, met: met.clone() }
        .checker()
        .threads(THREADS)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let missed: Vec<_> = situations.iter().filter(|situation| !met.has(**situation)).collect();
    println!(
        "{:<46} {:>9} states, depth {:>2}, {:>5.1} s: {}",
        scenario.name,
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed().as_secs_f64(),
        if checker.discoveries().is_empty() { "all properties hold" } else { "A PROPERTY FAILS" },
    );
    println!("    {}", scenario.bounds());
    assert_none_fails(&scenario, checker.discoveries());
    assert!(missed.is_empty(), "{}: never met: {missed:?}", scenario.name);
}

/// Walks at random through what is too large to be explored, and wants the same. `WARMCAST_SEED` repeats a run.
pub(crate) fn holds_on_walks(scenario: Scenario, steps: usize, situations: &[Situation]) {
    let seed =
        std::env::var("WARMCAST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("WARMCAST_SEED={seed}");
    let met = Arc::new(Met::default());
    let begun = now();
    let checker = Exploration { scenario, met: met.clone() }
        .checker()
        .threads(THREADS)
        .target_state_count(steps)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_simulation(seed, UniformChooser)
        .join();
    println!(
        "{:<46} {:>9} steps of random walks, the longest {}, {:.1} s",
        scenario.name,
        checker.state_count(),
        checker.max_depth(),
        begun.elapsed().as_secs_f64(),
    );
    println!("    {}", scenario.bounds());
    assert_none_fails(&scenario, checker.discoveries());
    let missed: Vec<_> = situations.iter().filter(|situation| !met.has(**situation)).collect();
    assert!(missed.is_empty(), "{}: never met: {missed:?}", scenario.name);
}

/// Explores until the property fails, and wants it to.
pub(crate) fn fails(scenario: Scenario, property: &'static str) {
    let begun = now();
    let checker = Exploration { scenario, met: Arc::default() }
        .checker()
        .threads(THREADS)
        .finish_when(HasDiscoveries::AnyOf([property].into()))
        .spawn_bfs()
        .join();
    let states = checker.unique_state_count();
    let Some(path) = checker.discovery(property) else {
        panic!("{}: no counterexample to {property:?} in {states} states", scenario.name);
    };
    println!(
        "{} without {}: fails after {states} states, {:.1} s: {property}\n{}",
        scenario.name,
        scenario
            .without
            .map_or_else(|| "what its parameters here leave out".to_owned(), |rule| format!("{rule:?}")),
        begun.elapsed().as_secs_f64(),
        told(path.into_vec())
    );
}

fn assert_none_fails(scenario: &Scenario, discoveries: HashMap<&'static str, Path<World, Action>>) {
    let failures: Vec<_> = discoveries
        .into_iter()
        .map(|(property, path)| format!("fails: {property}\n{}", told(path.into_vec())))
        .collect();
    assert!(failures.is_empty(), "{}: {}", scenario.name, failures.join("\n"));
}

/// A path, step by step, with the entries that each step left.
fn told(path: Vec<(World, Option<Action>)>) -> String {
    let mut lines = Vec::new();
    let worlds = path.iter().skip(1).map(|(world, _)| world);
    for (world, action) in worlds.zip(path.iter().filter_map(|(_, action)| action.as_ref())) {
        lines.push(format!("    {:<42} {}", format!("{action:?}"), world.told()));
    }
    lines.join("\n")
}

#[expect(clippy::disallowed_methods, reason = "real time, for the report")]
fn now() -> Instant {
    Instant::now()
}
