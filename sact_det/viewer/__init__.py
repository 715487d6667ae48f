"""A trained network under the eyes of people: videos, cameras, a page to try it on."""
