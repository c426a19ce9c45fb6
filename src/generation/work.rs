//! What a job computes.

use serde::{Deserialize, Serialize};

use super::{Draw, Field, Film, Format, ImageField, InputImage, LoraUse, PromptSyntax, SchedulerChoice, Sound, table};

/// What a job computes. Code that handles only one kind of work matches the enum or calls [`Work::draw`],
/// [`Work::sound`] or [`Work::film`]. All other code matches the enum exhaustively, so that the compiler lists every
/// place that must handle a new kind of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "a job has one of them, and nearly all jobs draw")]
pub enum Work {
    Draw(Draw),
    /// A stored sound has `seconds` and no width, so no stored form fits both variants.
    Sound(Sound),
    /// A stored film has `frames` and no `clip_skip`, so no stored form fits two variants.
    Film(Film),
}

/// The kind of a job's work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkKind {
    #[default]
    Draw,
    Sound,
    Film,
}

impl WorkKind {
    pub const ALL: [WorkKind; 3] = [WorkKind::Draw, WorkKind::Sound, WorkKind::Film];

    /// The name in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            WorkKind::Draw => "draw",
            WorkKind::Sound => "sound",
            WorkKind::Film => "film",
        }
    }

    /// The path of the API under which generations of this kind are.
    pub fn root(self) -> &'static str {
        match self {
            WorkKind::Draw => "/v1/images",
            WorkKind::Sound => "/v1/audio",
            WorkKind::Film => "/v1/videos",
        }
    }

    /// The fields of a request.
    pub fn fields(self) -> &'static [&'static Field] {
        match self {
            WorkKind::Draw => table::FIELDS,
            WorkKind::Sound => table::SOUND_FIELDS,
            WorkKind::Film => table::FILM_FIELDS,
        }
    }

    /// The formats of files, in the order of preference.
    pub fn formats(self) -> &'static [Format] {
        match self {
            WorkKind::Draw => &Format::PICTURES,
            WorkKind::Sound => &Format::SOUNDS,
            WorkKind::Film => &Format::FILMS,
        }
    }

    /// What one result is.
    pub fn noun(self) -> &'static str {
        match self {
            WorkKind::Draw => "picture",
            WorkKind::Sound => "sound",
            WorkKind::Film => "film",
        }
    }

    /// What a model of this kind does, as the end of the sentence "the model …".
    pub fn does(self) -> &'static str {
        match self {
            WorkKind::Draw => "draws pictures",
            WorkKind::Sound => "makes sounds",
            WorkKind::Film => "makes films",
        }
    }
}

impl Work {
    pub fn kind(&self) -> WorkKind {
        match self {
            Work::Draw(_) => WorkKind::Draw,
            Work::Sound(_) => WorkKind::Sound,
            Work::Film(_) => WorkKind::Film,
        }
    }

    /// The drawing; `None` for other kinds of work.
    pub fn draw(&self) -> Option<&Draw> {
        match self {
            Work::Draw(draw) => Some(draw),
            Work::Sound(_) | Work::Film(_) => None,
        }
    }

    /// The sounds; `None` for other kinds of work.
    pub fn sound(&self) -> Option<&Sound> {
        match self {
            Work::Sound(sound) => Some(sound),
            Work::Draw(_) | Work::Film(_) => None,
        }
    }

    /// The films; `None` for other kinds of work.
    pub fn film(&self) -> Option<&Film> {
        match self {
            Work::Film(film) => Some(film),
            Work::Draw(_) | Work::Sound(_) => None,
        }
    }

    /// The pictures that the request contained, with their fields.
    pub fn placed_inputs(&self) -> impl Iterator<Item = (ImageField, &InputImage)> {
        let of_film = self.film().and_then(|film| film.image.as_ref()).map(|image| (ImageField::Image, image));
        self.draw().into_iter().flat_map(Draw::placed_inputs).chain(of_film)
    }

    /// The LoRAs that change the weights of the model.
    pub fn loras(&self) -> &[LoraUse] {
        match self {
            Work::Draw(draw) => &draw.loras,
            Work::Sound(_) => &[],
            Work::Film(film) => &film.loras,
        }
    }

    /// The texts that may have words of textual inversions, and their syntax; none for work that knows no such words.
    pub fn texts_with_words(&self) -> (PromptSyntax, Vec<&str>) {
        match self {
            Work::Draw(draw) => (draw.prompt_syntax, draw.texts().collect()),
            Work::Film(film) if film.motion_adapter.is_some() => {
                (PromptSyntax::Plain, vec![&film.prompt, &film.negative_prompt])
            }
            Work::Sound(_) | Work::Film(_) => (PromptSyntax::Plain, Vec::new()),
        }
    }

    /// The names of the networks that act on the denoiser: ControlNets, or the motion adapter of films.
    pub fn control_nets(&self) -> impl Iterator<Item = &str> {
        let controls = self.draw().into_iter().flat_map(|draw| &draw.controls).map(|control| control.model.as_str());
        controls.chain(self.film().and_then(|film| film.motion_adapter.as_deref()))
    }

    pub fn prompt(&self) -> &str {
        match self {
            Work::Draw(draw) => &draw.prompt,
            Work::Sound(sound) => &sound.prompt,
            Work::Film(film) => &film.prompt,
        }
    }

    /// The number of results.
    pub fn n(&self) -> u32 {
        match self {
            Work::Draw(draw) => draw.n,
            Work::Sound(sound) => sound.n,
            Work::Film(film) => film.n,
        }
    }

    /// The number of sampling steps.
    pub fn steps(&self) -> u32 {
        match self {
            Work::Draw(draw) => draw.steps,
            Work::Sound(sound) => sound.steps,
            Work::Film(film) => film.steps,
        }
    }

    pub fn scheduler(&self) -> &SchedulerChoice {
        match self {
            Work::Draw(draw) => &draw.scheduler,
            Work::Sound(sound) => &sound.scheduler,
            Work::Film(film) => &film.scheduler,
        }
    }

    /// The seed of result `index`.
    pub fn seed_of(&self, index: u32) -> u64 {
        match self {
            Work::Draw(draw) => draw.seed_of(index),
            Work::Sound(sound) => sound.seed_of(index),
            Work::Film(film) => film.seed_of(index),
        }
    }
}
