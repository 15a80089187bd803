import type { Command } from '../command.ts'
import { setupAgent } from '../setup/setup-agent.ts'
import { setupServer } from '../setup/setup-server.ts'

export const commands: readonly Command[] = [setupServer, setupAgent]
