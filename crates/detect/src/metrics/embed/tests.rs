use super::*;

const MINUTE: i64 = 60_000_000_000;

/// A wave of 96 rows with a little deterministic noise.
fn sine(i: i64) -> f64 {
    let noise = f64::from(((i as u32).wrapping_mul(2_654_435_761) >> 16) & 0xff) / 255.0;
    (i as f64 * std::f64::consts::TAU / 96.0).sin() * 10.0 + noise
}

fn run(values: impl IntoIterator<Item = f64>) -> Vec<Surprise> {
    let mut embed = Embed::default();
    values.into_iter().enumerate().map(|(i, v)| embed.step(i as i64 * MINUTE, v)).collect()
}

#[test]
fn state_is_small() {
    assert!(size_of::<Embed>() <= 3072, "{}", size_of::<Embed>());
}

#[test]
fn a_quiet_stretch_of_a_wave_is_novel_though_its_values_are_not() {
    let got = run((0..3000).map(|i| if (2000..2150).contains(&i) { 0.5 } else { sine(i) }));
    let usual = got[1000..2000].iter().map(|s| s.nlp).fold(0.0, f32::max);
    let quiet = got[2000..2150].iter().map(|s| s.nlp).fold(0.0, f32::max);
    assert!(quiet > usual && quiet > 1.8, "{quiet} against {usual}");
}

#[test]
fn offset_and_scale_do_not_matter() {
    let plain = run((0..1500).map(sine));
    let moved = run((0..1500).map(|i| 4096.0 + 1024.0 * sine(i)));
    for (a, b) in plain.iter().zip(&moved) {
        assert!((a.nlp - b.nlp).abs() < 0.05, "{a:?} {b:?}");
    }
}

#[test]
fn bad_values_and_stamps_change_nothing() {
    let mut a = Embed::default();
    for i in 0..600 {
        a.step(i * MINUTE, sine(i));
    }
    let b = a.clone();
    for v in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(a.step(600 * MINUTE, v), Surprise::default());
    }
    assert_eq!(a.step(599 * MINUTE, 1.0), Surprise::default());
    assert_eq!(a, b);
    for (i, v) in [f64::MAX, f64::MIN, 0.0, 1e-300].into_iter().enumerate() {
        let s = a.step((600 + i as i64) * MINUTE, v);
        assert!(s.nlp.is_finite() && s.novelty.is_finite(), "{s:?}");
    }
}

#[test]
fn a_constant_is_never_novel() {
    assert!(run(std::iter::repeat_n(42.0, 2000)).iter().all(|s| s.novelty == 0.0));
}

#[test]
fn a_restored_state_goes_on_bit_for_bit() {
    for cut in [0, 10, 149, 150, 151, 200, 290, 900] {
        let mut a = Embed::default();
        for i in 0..cut {
            a.step(i * MINUTE, sine(i));
        }
        let bytes = a.to_bytes();
        let mut b = Embed::from_bytes(&bytes).unwrap();
        for i in cut..cut + 300 {
            assert_eq!(a.step(i * MINUTE, sine(i)), b.step(i * MINUTE, sine(i)));
        }
        assert_eq!(a.to_bytes(), b.to_bytes());
        assert!(Embed::from_bytes(&bytes[..bytes.len() - 1]).is_none());
    }
    assert!(Embed::from_bytes(&[]).is_none());
    assert!(Embed::from_bytes(&[0xff; 4000]).is_none());
}

#[test]
fn a_gate_is_silent_after_an_alarm_and_hardens() {
    let mut gate = Gate::default();
    let raised: Vec<_> = (0..2000).filter(|_| gate.step(2.0)).collect();
    assert!(raised.windows(2).all(|two| two[1] - two[0] > 100), "{raised:?}");
    let (early, late) = (raised[1] - raised[0], raised[raised.len() - 1] - raised[raised.len() - 2]);
    assert!(late > early, "{raised:?}");
}
