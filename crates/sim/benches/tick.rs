//! Cost of a simulated second: `cargo bench -p nightshift-sim`.

use criterion::{Criterion, criterion_group, criterion_main};
use nightshift_sim::{EstateSpec, InjectedFault, Scrape, SimFault, World};
use std::hint::black_box;

fn second(c: &mut Criterion) {
    let mut group = c.benchmark_group("simulated_second");
    for (name, spec) in [("six", EstateSpec::six()), ("500", EstateSpec::generated(500, 2))] {
        let mut world = World::new(spec.clone(), 2);
        let mut scrape = Scrape::default();
        group.bench_function(format!("{name}/at_rest"), |b| {
            b.iter(|| {
                world.tick();
                world.scrape(black_box(&mut scrape));
            });
        });
        let mut world = World::new(spec.clone(), 2).talking(false).noise(false);
        group.bench_function(format!("{name}/silent"), |b| b.iter(|| world.tick()));
        let mut world = World::new(spec.clone(), 2);
        let mut fault = InjectedFault::usual(SimFault::RetryStorm, &spec, 0.0).expect("the estate has such a place");
        fault.hold_secs = f64::MAX;
        world.inject(fault);
        group.bench_function(format!("{name}/in_a_storm"), |b| {
            b.iter(|| {
                world.tick();
                world.scrape(black_box(&mut scrape));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, second);
criterion_main!(benches);
