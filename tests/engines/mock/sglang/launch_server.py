# SPDX-License-Identifier: Apache-2.0
from mock_engine import main

main()
