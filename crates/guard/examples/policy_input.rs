//! The document that policies are given, as an example and as a JSON schema:
//! `cargo run -p nightshift-guard --example policy_input [schema]`.

use nightshift_guard::PolicyInput;

fn main() -> Result<(), serde_json::Error> {
    let value = match std::env::args().nth(1).as_deref() {
        Some("schema") => PolicyInput::schema(),
        _ => serde_json::to_value(PolicyInput::example())?,
    };
    println!("{}", serde_json::to_string_pretty(&value)?);
    Ok(())
}
