//! The live view of the demo: the estate above, the story below. On a terminal only.

use super::story::{Line, Tone};
use nightshift_model::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as TextLine, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, Wrap};
use std::collections::{BTreeMap, VecDeque};

/// Lines of the story that are kept for the view.
const LINES_MAX: usize = 500;
/// Readings that a sparkline shows.
const SPARK: usize = 24;

/// One service as the view shows it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ServiceRow {
    /// Its name.
    pub name: String,
    /// Requests per second.
    pub rate: f64,
    /// Share of requests that fail, percent.
    pub errors: f64,
    /// 99th percentile, ms.
    pub p99: f64,
    /// Processor, percent.
    pub cpu: f64,
    /// Memory, percent.
    pub memory: f64,
    /// Replicas.
    pub replicas: u32,
    /// Objective of its latency, ms: twice its rest.
    pub p99_rest: f64,
}

/// What the view shows.
#[derive(Default)]
pub(super) struct Screen {
    /// Where the page of incidents is.
    pub url: String,
    /// Virtual time.
    pub now: Option<Timestamp>,
    /// How much faster than the wall it passes.
    pub speed: f64,
    /// The estate.
    pub services: Vec<ServiceRow>,
    /// What is broken in the estate right now: the demo may say so, Nightshift is not told.
    pub broken: Vec<String>,
    /// Figures for the foot.
    pub tally: Tally,
    lines: VecDeque<Line>,
    history: BTreeMap<String, VecDeque<f64>>,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub(super) struct Tally {
    /// Incidents opened.
    pub opened: u64,
    /// Incidents resolved.
    pub resolved: u64,
    /// Changes carried out.
    pub actions: u64,
    /// Sum of the times from noticed to resolved, virtual seconds.
    pub mttr_sum_s: f64,
}

impl Screen {
    /// Nothing has happened yet.
    pub(super) fn new(speed: f64) -> Self {
        Self { speed, ..Self::default() }
    }

    /// Adds a line of the story.
    pub(super) fn tell(&mut self, line: Line) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Takes in how the estate does.
    pub(super) fn estate(&mut self, now: Timestamp, services: Vec<ServiceRow>, broken: Vec<String>) {
        for row in &services {
            let past = self.history.entry(row.name.clone()).or_default();
            if past.len() == SPARK {
                past.pop_front();
            }
            past.push_back(row.p99);
        }
        (self.now, self.services, self.broken) = (Some(now), services, broken);
    }

    /// Draws it all.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let height = self.services.len() as u16 + 3;
        let [head, estate, story, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(height),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(), head);
        frame.render_widget(self.table(), estate);
        let inner = story.height.saturating_sub(2) as usize;
        frame.render_widget(self.story(inner), story);
        frame.render_widget(self.foot(), foot);
    }

    fn head(&self) -> Paragraph<'_> {
        let time = self.now.map(|t| t.to_string()).unwrap_or_default();
        let time = time.get(11..19).unwrap_or_default().to_owned();
        let world = match self.broken.as_slice() {
            [] => Span::styled("all is well", Style::new().fg(Color::Green)),
            broken => Span::styled(format!("broken: {}", broken.join(", ")), Style::new().fg(Color::Red)),
        };
        Paragraph::new(TextLine::from(vec![
            Span::styled(" nightshift demo ", Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)),
            Span::raw(format!("  {time}  {}×  ", self.speed)),
            world,
        ]))
    }

    fn table(&self) -> Table<'_> {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let rows = self.services.iter().map(|s| {
            let ill = |bad: bool| if bad { Style::new().fg(Color::Red) } else { Style::new() };
            let spark = self.history.get(&s.name).map(spark).unwrap_or_default();
            Row::new(vec![
                Cell::from(s.name.clone()),
                Cell::from(format!("{:>6.0}", s.rate)),
                Cell::from(format!("{:>7.1} %", s.errors)).style(ill(s.errors > 3.0)),
                Cell::from(format!("{:>7.0} ms", s.p99)).style(ill(s.p99 > s.p99_rest * 1.5)),
                Cell::from(format!("{:>5.0} %", s.cpu)).style(ill(s.cpu > 85.0)),
                Cell::from(format!("{:>5.0} %", s.memory)).style(ill(s.memory > 85.0)),
                Cell::from(format!("{:>4}", s.replicas)),
                Cell::from(spark).style(Style::new().fg(Color::DarkGray)),
            ])
        });
        let widths = [
            Constraint::Length(22),
            Constraint::Length(7),
            Constraint::Length(10),
            Constraint::Length(11),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(5),
            Constraint::Min(SPARK as u16),
        ];
        Table::new(rows, widths)
            .header(
                Row::new(["service", "   rps", "   errors", "      p99", "   cpu", "   mem", "pods", "p99"])
                    .style(bold),
            )
            .block(Block::new().borders(Borders::ALL).title(" the estate "))
    }

    fn story(&self, height: usize) -> Paragraph<'_> {
        let skip = self.lines.len().saturating_sub(height);
        let lines: Vec<TextLine<'_>> = self.lines.iter().skip(skip).map(told).collect();
        let empty = [TextLine::from("Nothing has happened yet. The first fault comes in a moment.")];
        let lines = if lines.is_empty() { empty.to_vec() } else { lines };
        Paragraph::new(lines)
            .wrap(Wrap { trim: false })
            .block(Block::new().borders(Borders::ALL).title(" what nightshift does "))
    }

    fn foot(&self) -> Paragraph<'_> {
        let t = &self.tally;
        let mttr = if t.resolved > 0 {
            format!(", {:.0} s on average", t.mttr_sum_s / t.resolved as f64)
        } else {
            String::new()
        };
        Paragraph::new(format!(
            " {} incidents, {} resolved{mttr}, {} changes made · page: {} · q ends it",
            t.opened, t.resolved, t.actions, self.url
        ))
    }
}

/// One line of the story, coloured.
fn told(line: &Line) -> TextLine<'_> {
    let colour = match line.tone {
        Tone::Alarm => Color::Red,
        Tone::Cause => Color::Magenta,
        Tone::Plan => Color::Blue,
        Tone::Guard => Color::Cyan,
        Tone::Act => Color::Yellow,
        Tone::Good => Color::Green,
        Tone::Person => Color::LightYellow,
        Tone::World => Color::DarkGray,
    };
    let time = line.at.to_string();
    TextLine::from(vec![
        Span::styled(format!("{} ", time.get(11..19).unwrap_or_default()), Style::new().fg(Color::DarkGray)),
        Span::styled(format!("{:<8} ", line.tone.word()), Style::new().fg(colour).add_modifier(Modifier::BOLD)),
        Span::styled(format!("{:<9} ", line.incident), Style::new().fg(Color::DarkGray)),
        Span::raw(line.text.as_str()),
    ])
}

/// Eighths of a block, scaled to the largest.
fn spark(values: &VecDeque<f64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let top = values.iter().copied().fold(1.0, f64::max);
    values.iter().map(|v| BARS[((v / top * 7.0).round() as usize).min(7)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn it_draws_at_any_size_and_says_when_there_is_nothing() {
        let mut screen = Screen { url: "http://127.0.0.1:8080".into(), speed: 10.0, ..Default::default() };
        assert!(drawn(&screen, 100, 30).contains("Nothing has happened yet"));
        let row = ServiceRow { name: "payment-service".into(), p99: 7_380.0, p99_rest: 380.0, ..Default::default() };
        screen.estate(Timestamp::from_secs(3_600), vec![row], vec!["latency_spike".into()]);
        let text = "Latency spike on payment-service".to_owned();
        screen.tell(Line { at: Timestamp::from_secs(3_601), tone: Tone::Alarm, incident: "INC-0001".into(), text });
        let whole = drawn(&screen, 120, 30);
        for want in
            ["payment-service", "7380 ms", "INC-0001", "01:00:01", "broken: latency_spike", "http://127.0.0.1:8080"]
        {
            assert!(whole.contains(want), "{want} missing in\n{whole}");
        }
        for (width, height) in [(1, 1), (20, 5), (40, 12), (300, 100)] {
            drawn(&screen, width, height);
        }
    }
}
