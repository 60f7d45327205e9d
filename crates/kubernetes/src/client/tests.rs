use super::*;
use std::io::Write as _;

const FILE: &str = r"
apiVersion: v1
kind: Config
current-context: one
clusters:
- name: c
  cluster: { server: 'https://user:geheim@api.example:6443' }
users:
- name: u
  user: { token: geheim }
contexts:
- name: one
  context: { cluster: c, user: u, namespace: shop }
- name: two
  context: { cluster: c, user: u }
";

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

async fn find(text: &str, context: Option<&str>) -> Result<ApiServer, KubeError> {
    let file = file(text);
    let access =
        Access { kubeconfig: Some(file.path().to_owned()), context: context.map(str::to_owned), in_cluster: false };
    ApiServer::find(&access).await
}

#[tokio::test]
async fn the_context_names_server_and_namespace_without_credentials() {
    let server = find(FILE, None).await.unwrap();
    assert_eq!((server.url(), server.context(), server.namespace()), ("https://api.example:6443", "one", "shop"));
    let server = find(FILE, Some("two")).await.unwrap();
    assert_eq!((server.context(), server.namespace()), ("two", "default"));
    assert!(!format!("{server:?}").contains("geheim"));
}

#[tokio::test]
async fn what_is_wrong_with_a_kubeconfig_is_said_without_its_secrets() {
    let unknown = find(FILE, Some("three")).await.unwrap_err();
    assert!(unknown.is_bad_input());
    assert!(unknown.to_string().contains("one, two"), "{unknown}");
    let no_current = find(&FILE.replace("current-context: one", ""), None).await.unwrap_err();
    assert!(no_current.to_string().contains("--context"), "{no_current}");
    for broken in
        [FILE.replace("token: geheim", "token: [geheim"), "geheim".into(), FILE.replace("users:", "users: geheim")]
    {
        let error = find(&broken, None).await.unwrap_err();
        assert!(error.is_bad_input());
        assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
    }
    let access = Access { kubeconfig: Some("/nowhere/at/all".into()), ..Access::default() };
    let missing = ApiServer::find(&access).await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/at/all"), "{missing}");
}

#[tokio::test]
async fn a_login_program_that_fails_is_named_but_not_quoted() {
    let text = FILE.replace(
        "user: { token: geheim }",
        "user: { exec: { apiVersion: client.authentication.k8s.io/v1, command: sh, args: ['-c', 'echo geheim; exit 3'], interactiveMode: Never } }",
    );
    let error = match find(&text, None).await {
        Ok(server) => server.get("/version", 1000, ANSWER).await.unwrap_err(),
        Err(e) => e,
    };
    assert!(matches!(error, KubeError::Login { .. }), "{error:?}");
    assert!(error.to_string().contains("3") && !format!("{error:?}").contains("geheim"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be() {
    // A port that was just free.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = FILE.replace("https://user:geheim@api.example:6443", &format!("http://127.0.0.1:{port}"));
    let error = find(&text, None).await.unwrap().get("/version", 1000, ANSWER).await.unwrap_err();
    assert!(matches!(error, KubeError::Unreachable { .. }) && error.is_hopeless(), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
}

/// A server that answers each request with what a function gives.
fn answers(
    reply: impl Fn(u32) -> Response<Body> + Send + Sync + 'static,
) -> (ApiServer, std::sync::Arc<std::sync::atomic::AtomicU32>) {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = asked.clone();
    let service = tower::service_fn(move |_: Request<Body>| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let answer = reply(n);
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    (ApiServer::with_client(kube::Client::new(service, "default"), "http://double"), asked)
}

fn answer(status: u16, text: &str) -> Response<Body> {
    Response::builder().status(status).body(Body::from(text.as_bytes().to_vec())).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_asked_again_and_a_refusal_is_final() {
    let (server, asked) = answers(|n| match n {
        0 => Response::builder().status(429).header("retry-after", "3").body(Body::empty()).unwrap(),
        1 => answer(503, ""),
        _ => answer(200, "yes"),
    });
    let began = tokio::time::Instant::now();
    assert_eq!(server.get_patiently("/x", 10).await.unwrap(), "yes");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 3);
    assert!(began.elapsed() >= Duration::from_secs(3), "the wait that it asked for");

    let (server, asked) = answers(|_| answer(403, r#"{"kind":"Status","message":"pods is forbidden"}"#));
    let error = server.get_patiently("/x", 10).await.unwrap_err();
    assert_eq!(error, KubeError::Forbidden("pods is forbidden".into()));
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);

    let (server, asked) = answers(|_| answer(500, "<html>secret</html>"));
    let error = server.get_patiently("/x", 10).await.unwrap_err();
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), TRIES);
    assert!(!error.to_string().contains("html"), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    let (server, _) = answers(|_| answer(200, &"x".repeat(1000)));
    assert_eq!(server.get("/x", 999, ANSWER).await.unwrap_err(), KubeError::TooLarge(999));
    assert_eq!(server.get("/x", 1000, ANSWER).await.unwrap().len(), 1000);
}
