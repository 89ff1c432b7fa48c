"""`python -m segkc_deploy` is the same as `segkc-deploy`."""

from segkc_deploy.cli import main

main()
