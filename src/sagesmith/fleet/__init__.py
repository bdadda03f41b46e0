"""Where instances come from: this machine, or a cluster. `api` is the contract, `local` this machine."""
