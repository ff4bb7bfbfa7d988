//! `report.html` in a browser: Chromium without a window, where there is one, told what to do through a pipe.

use crate::support::{Lab, THREE_CELLS, list};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command};

/// A browser with one page open. Both ends of its pipe are files with names, since a child's third and fourth file can't be
/// given without a shell.
struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    session: Option<String>,
    asked: u64,
    /// What it told without being asked.
    events: Vec<Value>,
}

impl Browser {
    /// None where there is no Chromium.
    fn start(folder: &Path) -> Option<Self> {
        Command::new("chromium").arg("--version").output().ok().filter(|output| output.status.success())?;
        let (to, from) = (folder.join("to"), folder.join("from"));
        Command::new("mkfifo").args([&to, &from]).status().ok().filter(std::process::ExitStatus::success)?;
        let profile = folder.join("profile");
        let script = format!(
            "exec timeout 120 chromium --headless --no-sandbox --disable-gpu --user-data-dir='{}' \
             --remote-debugging-pipe 3<'{}' 4>'{}' 2>/dev/null",
            profile.display(),
            to.display(),
            from.display()
        );
        let child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        // In the shell's order: each waits for its other end.
        let to = File::options().write(true).open(to).unwrap();
        let from = BufReader::new(File::open(from).unwrap());
        let mut browser = Self { child, to, from, session: None, asked: 0, events: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).unwrap();
            assert_eq!(answer.pop(), Some(0), "the browser has ended");
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == self.asked {
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    fn open(&mut self, page: &Path) {
        self.call("Page.navigate", json!({ "url": format!("file://{}", page.display()) }));
        while self.value("location.protocol + document.readyState") != "file:complete" {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn value(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The texts of a column of the first table, as far as it is shown.
    fn column(&mut self, name: &str) -> Vec<String> {
        let texts = self.value(&format!(
            "(() => {{ const d = document.querySelector('details.table'); \
             const at = [...d.querySelectorAll('th')].findIndex((t) => t.textContent.split(' ')[0] === '{name}'); \
             return [...d.querySelectorAll('tbody tr')].map((row) => row.cells[at].textContent); }})()"
        ));
        serde_json::from_value(texts).unwrap()
    }

    fn sort(&mut self, name: &str) {
        self.value(&format!(
            "[...document.querySelectorAll('details.table th button')]\
             .find((b) => b.textContent.split(' ')[0] === '{name}').click()"
        ));
    }

    fn filter(&mut self, words: &str) {
        self.value(&format!(
            "(() => {{ const f = document.querySelector('input'); f.value = '{words}'; \
             f.dispatchEvent(new Event('input')); }})()"
        ));
    }

    fn told(&self, method: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["method"] == method).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends with its pipe, or by `timeout`.
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.child.wait();
    }
}

#[test]
fn the_page_sorts_and_filters_and_asks_for_nothing() {
    let lab =
        Lab::tiny(&THREE_CELLS.replace("name = \"e\"", "name = \"e\"\ntitle = \"</title><script>boom()</script>\""));
    lab.run(["run", "e.toml"]).exits(0);
    let page = lab.path("results/e/report.html");
    let before = std::fs::read(&page).unwrap();
    lab.run(["report", "results/e"]).exits(0);
    assert_eq!(std::fs::read(&page).unwrap(), before, "equal cells give equal bytes");
    let folder = tempfile::tempdir().unwrap();
    let Some(mut browser) = Browser::start(folder.path()) else {
        eprintln!("passed over: there is no `chromium`");
        return;
    };
    browser.open(&page);
    assert_eq!(browser.value("document.title"), "</title><script>boom()</script>");
    let all = browser.column("variant");
    assert_eq!(all.len(), 3);
    browser.sort("nonzero");
    let numbers = |texts: Vec<String>| texts.iter().map(|text| text.parse::<f64>().unwrap()).collect::<Vec<_>>();
    let ascending = numbers(browser.column("nonzero"));
    assert!(ascending.is_sorted() && ascending[0] < ascending[2], "{ascending:?}");
    browser.sort("nonzero");
    assert!(numbers(browser.column("nonzero")).iter().rev().is_sorted());
    browser.filter("variant=dense");
    assert_eq!(browser.column("variant"), ["dense"]);
    browser.filter("sparsity>0.1");
    assert_eq!(browser.column("variant").len(), 2);
    browser.filter("nothing-has-this");
    assert!(browser.column("variant").is_empty());
    browser.filter("");
    assert_eq!(browser.column("variant").len(), 3);
    for method in ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"] {
        assert!(browser.told(method).is_empty(), "{:?}", browser.told(method));
    }
    let requests = browser.told("Network.requestWillBeSent");
    let urls: Vec<&str> = requests.iter().filter_map(|event| event["params"]["request"]["url"].as_str()).collect();
    assert!(urls.iter().all(|url| url.ends_with("/report.html")) && urls.len() == 1, "{urls:?}");
}

#[test]
fn every_plot_is_a_pdf_too() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml", "-s", "plots.width=column"]).exits(0);
    let plots = list(&lab.path("results/e/plots"));
    let of = |extension: &str| plots.iter().filter(|path| path.extension().is_some_and(|e| e == extension)).count();
    assert!(of("svg") > 0 && of("svg") == of("pdf") && of("svg") == of("png"), "{plots:?}");
    for pdf in plots.iter().filter(|path| path.extension().is_some_and(|e| e == "pdf")) {
        assert!(std::fs::read(pdf).unwrap().starts_with(b"%PDF-"));
        let svg = std::fs::read_to_string(pdf.with_extension("svg")).unwrap();
        assert!(svg.contains("width=\"340\""), "{}", pdf.display());
    }
}
