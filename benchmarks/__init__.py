"""What this project's pages are made by: study, bench and paper."""
