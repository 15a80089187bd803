import { manufactureTpm } from './swtpm.ts'

// `scripts/software-tpm manufacture DIR`
const [directory = ''] = process.argv.slice(2)
await manufactureTpm(directory)
