use std::{io::Write as _, path::Path};

use super::*;

fn surroundings() -> Surroundings {
    Surroundings {
        home: Some("/home/me".into()),
        ..Surroundings::default()
    }
}

fn sources(arguments: &[&str]) -> Result<Sources, ConfigError> {
    Sources::new(["pipeletd"].iter().chain(arguments), surroundings())
}

fn load(arguments: &[&str]) -> Result<Config, ConfigError> {
    Ok(sources(arguments)?.load()?.config)
}

fn is_of_file(error: &ConfigError) -> bool {
    match error {
        ConfigError::Arguments(_) => false,
        ConfigError::Faults(faults) => faults.iter().any(Fault::is_of_file),
    }
}

#[test]
fn the_defaults_are_the_contracts() {
    let config = load(&[]).unwrap();
    assert_eq!(config.data_dir, Path::new("/home/me/.local/share/pipelet"));
    assert_eq!(config.http_listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.grpc_listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.ocpp_listen.to_string(), "127.0.0.1:9000");
    assert_eq!(
        config.retry_schedule,
        RetrySchedule::DEFAULT.parse().unwrap()
    );
    assert_eq!(config.max_attempts, 7);
    assert_eq!(config.delivery_timeout, Duration::from_secs(10));
    assert_eq!(config.retention, Duration::from_hours(24));
    assert_eq!(config.retention_size, ByteSize::gib(4));
    assert_eq!(config.transaction_retention, Duration::from_hours(400 * 24));
    assert_eq!(config.heartbeat_interval, Duration::from_mins(5));
    assert!(!config.allow_private_targets);
    assert_eq!(config.authorize, Authorize::AcceptAll);
    assert!(config.ocpp_tls.is_none());
    assert_eq!(config.stations, StationsPolicy::Open);
    assert_eq!(config.ocpp_rate, Rate::new(1000.0, 4000.0));
    assert!(config.api_tls.is_none());
    assert_eq!(config.api_rate, Rate::new(200.0, 800.0));
    assert_eq!(config.api_max_connections, 256);
    assert_eq!(config.log_format, LogFormat::Json);
    assert!(config.otlp_endpoint.is_none());
}

#[test]
fn dev_is_for_ones_own_machine() {
    let config = load(&["--dev"]).unwrap();
    assert!(config.allow_private_targets);
    assert_eq!(config.log_format, LogFormat::Text);
    assert!(
        !load(&["--dev", "--allow-private-targets=false"])
            .unwrap()
            .allow_private_targets
    );
}

#[test]
fn targets_are_allowed_one_by_one_or_as_a_list() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "allow-target = [\"10.1.0.0/16\", \"::1\"]").unwrap();
    let path = file.path().to_str().unwrap();
    let check = |arguments: &[&str], expected: &[&str]| {
        let expected: Vec<_> = expected.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(load(arguments).unwrap().allow_targets, expected);
    };
    check(&[], &[]);
    check(&["--config", path], &["10.1.0.0/16", "::1"]);
    check(
        &[
            "--allow-target",
            "fd00::/8, 10.0.0.1",
            "--allow-target=10.2.0.0/16",
        ],
        &["fd00::/8", "10.0.0.1", "10.2.0.0/16"],
    );
    check(&["--config", path, "--allow-target", "::2"], &["::2"]);
}

#[test]
fn a_key_is_rotated_by_a_command_with_the_daemons_settings() {
    assert_eq!(*sources(&[]).unwrap().task(), Task::Run);
    for arguments in [
        [
            "--data-dir=/d",
            "--secrets-key-file=/k",
            "rotate-secrets-key",
        ],
        [
            "rotate-secrets-key",
            "--data-dir=/d",
            "--secrets-key-file=/k",
        ],
    ] {
        let task = sources(&arguments).unwrap().task().clone();
        assert_eq!(task, Task::RotateSecretsKey);
        let config = load(&arguments).unwrap();
        assert_eq!(config.data_dir, Path::new("/d"));
        assert_eq!(config.secrets_key_file.as_deref(), Some(Path::new("/k")));
    }
}

#[test]
fn a_flag_goes_before_the_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(
        file,
        "max-attempts = 3\nretention-size = \"1MiB\"\nauthorize = \"registered\"\nocpp-strict = true\n\
         stations = \"registered\"\nocpp-tls-listen = \"127.0.0.1:0\"\n\
         ocpp-tls-cert = \"c.pem\""
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let config = load(&[
        "--config",
        path,
        "--max-attempts",
        "9",
        "--ocpp-tls-key",
        "k.pem",
    ])
    .unwrap();
    assert_eq!(config.max_attempts, 9);
    assert_eq!(config.retention_size.bytes(), 1 << 20);
    assert!(config.ocpp_strict);
    assert_eq!(config.authorize, Authorize::Registered);
    assert_eq!(config.stations, StationsPolicy::Registered);
    let files = config.ocpp_tls.unwrap().files;
    assert_eq!(files.certificate, Path::new("c.pem"));
    assert_eq!(files.key, Path::new("k.pem"));
}

#[test]
fn a_file_that_is_wrong_says_where() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "max-attempts = 3\nretry-shedule = \"1s\"").unwrap();
    let error = load(&["--config", file.path().to_str().unwrap()]).unwrap_err();
    assert!(is_of_file(&error));
    let expected = ":2:1: there is no setting \"retry-shedule\"; did you mean \"retry-schedule\"?";
    assert!(error.to_string().ends_with(expected), "{error}");
    let missing = load(&["--config", "/there/is/none.toml"]).unwrap_err();
    assert!(is_of_file(&missing), "{missing}");
}

#[test]
fn nonsense_is_refused_with_its_name() {
    let check = |arguments: &[&str], expected: &str| {
        let error = load(arguments).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!is_of_file(&error));
    };
    check(
        &["--retry-schedule", "30s,soon"],
        "\"soon\" in the retry schedule",
    );
    check(&["--retry-schedule", ""], "at least one wait");
    check(
        &["--max-attempts", "0"],
        "'--max-attempts <N>': it is at least 1",
    );
    check(
        &["--delivery-timeout", "fast"],
        "'--delivery-timeout <TIME>': it is no time such as",
    );
    check(
        &["--ping-interval", "0s"],
        "'--ping-interval <TIME>': it is not between 1ms and 1h",
    );
    check(&["--http-listen", "nowhere"], "nowhere");
    check(&["--ocpp-rate", "0/s"], "'--ocpp-rate <RATE>': a rate is");
    check(&["--api-rate", "fast"], "'--api-rate <RATE>': a rate is");
    check(
        &["--api-max-connections", "0"],
        "'--api-max-connections <N>': it is",
    );
    check(
        &["--api-tls-cert", "c.pem"],
        "--api-tls-cert: api-tls-cert goes together with api-tls-key",
    );
    check(
        &["--api-tls-key", "c.pem"],
        "--api-tls-key: api-tls-key goes together with api-tls-cert",
    );
    check(&["--log-level", "loud"], "it is none of error, warn");
    check(&["--stations", "some"], "some");
    check(
        &["--otlp-endpoint", "http://me:key@collector:4318"],
        "'--otlp-endpoint <URL>': a collector's URL has no user name",
    );
    check(
        &["--allow-target", "10.0.0.0/8,intranet"],
        "\"intranet\" is no network",
    );
    check(
        &["--ocpp-tls-cert", "c.pem"],
        "ocpp-tls-cert goes together with ocpp-tls-listen and ocpp-tls-key",
    );
    check(
        &["--ocpp-client-ca", "c.pem"],
        "ocpp-client-ca goes together with ocpp-tls-listen and ocpp-tls-cert and ocpp-tls-key",
    );
    check(&["--bootstrap-key", "x"], "unexpected argument");
}

#[test]
fn the_bootstrap_key_is_checked_and_never_shown() {
    let with = |key: &str| Surroundings {
        bootstrap_key: Some(key.to_owned()),
        ..surroundings()
    };
    let key = "hcpms_live_0123456789abcdef";
    let load = |key: &str| Sources::new(["pipeletd"], with(key)).unwrap().load();
    let Loaded { config, settings } = load(key).unwrap();
    assert_eq!(config.bootstrap_key, Some(ApiKey::parse(key).unwrap()));
    assert!(!format!("{config:?}{settings:?}").contains(key));
    assert!(!show::as_toml(&settings, true).contains(key));
    assert!(load("secret").is_err());
}

/// What is said of a file's text, without the file's name.
fn faults_of(text: &str, arguments: &[&str]) -> Vec<String> {
    let (entries, faults) = file::parse(text, Path::new("f"));
    match sources(arguments).unwrap().combine(entries, faults) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn everything_that_is_wrong_with_a_file_is_said_at_once() {
    let check = |text: &str, expected: &[&str]| assert_eq!(faults_of(text, &[]), expected);
    check("", &[]);
    check("max-attempts = 3\nallow-target = []\ndev = true", &[]);
    check(
        "max-attempts = 0\n  retention = \"soon\"\n\nstations = \"some\"\ncheck = true\n\
         data-dir = 1.5\nping-interval = [\"1s\"]\nallow-target = [\"1.0.0.0/8\", \"home\"]\n\
         max-attemps = 1\n[more]\nx = 1",
        &[
            "f:1:16: max-attempts: \"0\": it is at least 1",
            "f:2:15: retention: \"soon\": it is no time such as \"10s\" or \"1h 30m\"",
            "f:4:12: stations: \"some\": it is one of open, registered",
            "f:5:1: there is no setting \"check\"",
            "f:6:12: data-dir: a float can't be its value",
            "f:7:17: ping-interval: it takes one value, and no list",
            "f:8:16: allow-target: \"home\": \"home\" is no network such as 10.1.0.0/16 or \
             fd00::/8, and no address",
            "f:9:1: there is no setting \"max-attemps\"; did you mean \"max-attempts\"?",
            "f:10:1: more: a table can't be its value",
        ],
    );
    check(
        "api-tls-key = \"k.pem\"",
        &["f:1:15: api-tls-key goes together with api-tls-cert"],
    );
    check(
        "max-attempts = x\nretention",
        &[
            "f:1:16: string values must be quoted, expected literal string",
            "f:2:10: key with no value, expected `=`",
        ],
    );
}

#[test]
fn what_is_shown_is_a_file_that_says_the_same() {
    let text = "max-attempts = 3\nallow-target = [\"10.0.0.0/8\", \"::1\"]\nocpp-strict = true\n\
                log-level = \"info,sled=warn\"\nretention-size = 1048576\nca-file = \"007\"\n";
    let (entries, faults) = file::parse(text, Path::new("a.toml"));
    let sources = sources(&["--dev", "--retention=1h", "--max-attempts=4"]).unwrap();
    let loaded = sources.combine(entries, faults).unwrap();
    let shown = show::as_toml(&loaded.settings, true);
    let origin_of = |name: &str| {
        let line = shown.lines().find(|line| line.starts_with(name)).unwrap();
        line.split("  # ").nth(1).map(str::trim)
    };
    for (name, origin) in [
        ("data-dir = ", Some("default")),
        ("# api-tls-key is not set", None),
        ("max-attempts = 4", Some("flag --max-attempts")),
        ("retention = \"1h\"", Some("flag --retention")),
        ("retention-size = 1048576", Some("a.toml:5")),
        ("allow-target = [\"10.0.0.0/8\", \"::1\"]", Some("a.toml:2")),
        ("ocpp-strict = true", Some("a.toml:3")),
        ("allow-private-targets = true", Some("default with dev")),
        ("log-format = \"text\"", Some("default with dev")),
    ] {
        assert_eq!(origin_of(name), origin, "{shown}");
    }
    let (entries, faults) = file::parse(&shown, Path::new("b.toml"));
    let again = self::sources(&[])
        .unwrap()
        .combine(entries, faults)
        .unwrap();
    assert_eq!(
        format!("{:?}", again.config),
        format!("{:?}", loaded.config)
    );
    assert_eq!(
        show::as_toml(&again.settings, false),
        show::as_toml(&loaded.settings, false)
    );
}

#[test]
fn a_path_that_is_no_text_stays_as_it_is() {
    use std::os::unix::ffi::OsStringExt as _;
    let flag = std::ffi::OsString::from_vec(b"--data-dir=/d\xff".to_vec());
    let sources = Sources::new(["pipeletd".into(), flag], surroundings()).unwrap();
    let data_dir = sources.load().unwrap().config.data_dir;
    assert_eq!(data_dir.into_os_string().into_vec(), b"/d\xff");
}
